"""Decoders: from a batch of encoded images to one array of pixels of one size.

The built-in decoders give the same images to within one level of 255, except for
``turbo_scaled``: it decodes JPEGs of at least twice the wanted size at 1/2, 1/4 or 1/8 of their
size, which is faster and gives smoother images. The table is open: ``module:name`` and
``file.py:name`` name a decoder of the user's own.
"""

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

from tenfold.data.errors import UserError
from tenfold.data.runtime.user_code import load_user_object, names_user_object

if TYPE_CHECKING:
    import tensorflow as tf

AUTO: Final = "auto"
# Decoding limits reading where decoding threads are busy for this share of the time.
BUSY: Final = 0.7
DECODERS: Final = {
    "tf": "tenfold.data.reading.decoding.tf_decoder:TensorFlowDecoder",
    "turbo": "tenfold.data.reading.decoding.turbo_decoder:TurboDecoder",
    "turbo_scaled": "tenfold.data.reading.decoding.turbo_decoder:ScaledTurboDecoder",
}
_TURBO_NEEDS: Final = ("simplejpeg", "cv2")

# (height, width, channels)
ImageShape = tuple[int, int, int]


@runtime_checkable
class GraphDecoder(Protocol):
    """Decodes, crops, resizes and mirrors a batch of images by TensorFlow ops."""

    def __call__(self, encoded: "tf.Tensor", crops: "tf.Tensor | None") -> "tf.Tensor":
        """Return uint8 [n, height, width, channels].

        Args:
          encoded: string [n].
          crops: float32 [n, 5], see `random_crops`; None takes whole images.
        """
        ...


@runtime_checkable
class PythonDecoder(Protocol):
    """Decodes a batch of images in plain Python, outside the tf.data graph.

    Several threads call one decoder at the same time.
    """

    def decode_batch(
        self,
        encoded: Sequence[bytes | memoryview],
        crops: Any,
        describe: Callable[[int], str],
    ) -> Any:
        """Return uint8 [n, height, width, channels].

        Args:
          encoded: encoded images; a memoryview is valid during the call only.
          crops: float32 [n, 5], see `random_crops`; None takes whole images.
          describe: names the image at an index of the batch in error messages.

        Raises:
          ValueError: an image cannot be decoded; the message has its description.
        """
        ...


Decoder = GraphDecoder | PythonDecoder
# Makes the decoder of images of a shape: a class or a function.
DecoderFactory = Callable[[ImageShape], Decoder]


def check_decoder(decoder: str | DecoderFactory) -> None:
    """Check a decoder's name without importing anything.

    Raises:
      UserError: it is neither built in nor of the form ``module:name`` or ``file.py:name``.
    """
    if callable(decoder) or decoder in (AUTO, *DECODERS) or names_user_object(decoder):
        return
    from difflib import get_close_matches

    near = get_close_matches(decoder, (AUTO, *DECODERS), n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join((AUTO, *DECODERS))}"
    raise UserError(
        f"unknown decoder '{decoder}': {hint}; write module:name or file.py:name for your own"
    )


def resolve_decoder(name: str) -> str:
    """Return `name`, or the fastest decoder installed for ``auto``.

    Raises:
      UserError: there is no such decoder, or a package that it needs is not installed.
    """
    check_decoder(name)
    missing = [module for module in _TURBO_NEEDS if importlib.util.find_spec(module) is None]
    if name == AUTO:
        return "tf" if missing else "turbo"
    if name in DECODERS and name != "tf" and missing:
        raise UserError(
            f"decoder '{name}' needs {' and '.join(missing)}: pip install 'tenfold[fast]'"
        )
    return name


def load_decoder(name: str, *, working_dir: str = "") -> DecoderFactory:
    """Import the decoder called `name`; `working_dir` is the folder its file is relative to.

    Raises:
      UserError: see `resolve_decoder`; or the module, the file or the name does not exist.
    """
    name = resolve_decoder(name)
    reference = DECODERS.get(name, name)
    factory: DecoderFactory = load_user_object(reference, "decoder", working_dir=working_dir)
    if not callable(factory):
        raise UserError(
            f"decoder '{name}' is {type(factory).__name__}: give a class, or a function, that "
            "takes (height, width, channels)"
        )
    return factory


def make_decoder(decoder: str | DecoderFactory, shape: ImageShape) -> Decoder:
    """Return the decoder, by name or by factory, of images of `shape`.

    Raises:
      UserError: see `load_decoder`; or the object made is not a decoder.
    """
    made = (load_decoder(decoder) if isinstance(decoder, str) else decoder)(shape)
    if not isinstance(made, PythonDecoder | GraphDecoder):
        raise UserError(
            f"decoder '{decoder}' makes a {type(made).__name__}, which has neither decode_batch "
            "nor __call__"
        )
    return made
