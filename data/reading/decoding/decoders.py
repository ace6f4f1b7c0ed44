"""Decoders: from a batch of encoded images to one array of pixels, all of one size.

A decoder is a name in `DECODERS`. All of them give the same images to within one level of
255, but for ``turbo_scaled``: it decodes JPEGs of twice the wanted size and more at a half, a
quarter or an eighth of their size, which is faster and smoother.
"""

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

from tenfold.data.errors import UserError

if TYPE_CHECKING:
    import tensorflow as tf

AUTO: Final = "auto"
# Decoding is what limits reading when it is at work for this share of the time.
BUSY: Final = 0.7
DECODERS: Final = {
    "tf": "tenfold.data.reading.decoding.tf_decoder:TensorFlowDecoder",
    "turbo": "tenfold.data.reading.decoding.turbo_decoder:TurboDecoder",
    "turbo_scaled": "tenfold.data.reading.decoding.turbo_decoder:ScaledTurboDecoder",
}
_TURBO_NEEDS: Final = ("simplejpeg", "cv2")

# (height, width, channels)
ImageShape = tuple[int, int, int]


class BatchDecoder(Protocol):
    """Decodes, cuts, resizes and mirrors a batch of images inside a tf.data graph.

    One that is a `ImageDecoder` too is not called from the graph, but with whole records (see
    `image_batches`).
    """

    def __call__(self, encoded: "tf.Tensor", views: "tf.Tensor | None") -> "tf.Tensor":
        """Returns uint8 [n, height, width, channels] of `encoded`, string [n].

        `views` [n, 5] is what `views.random_crop_flip` returns; None takes whole images.
        """
        ...


@runtime_checkable
class ImageDecoder(Protocol):
    """Does so outside of TensorFlow's ops."""

    def decode_batch(
        self, encoded: Sequence[bytes | memoryview], views: Any, name_of: Callable[[int], str]
    ) -> Any:
        """Returns uint8 [n, height, width, channels]; `views` is float32 [n, 5] or None.

        Raises:
          ValueError: an image cannot be decoded; the message has its `name_of`.
        """
        ...


def resolve_decoder(name: str) -> str:
    """Returns `name`, or for ``auto`` the fastest that is installed here.

    Raises:
      UserError: there is no such decoder, or what it needs is not installed.
    """
    missing = [module for module in _TURBO_NEEDS if importlib.util.find_spec(module) is None]
    if name == AUTO:
        return "tf" if missing else "turbo"
    if name not in DECODERS:
        raise UserError(f"decoder '{name}' is none of: {', '.join((AUTO, *DECODERS))}")
    if name != "tf" and missing:
        raise UserError(
            f"decoder '{name}' needs {' and '.join(missing)}: pip install 'tenfold[fast]'"
        )
    return name


def make_decoder(name: str, shape: ImageShape) -> BatchDecoder:
    """Returns the decoder called `name` for images of `shape`.

    Raises:
      UserError: see `resolve_decoder`.
    """
    module, _, attribute = DECODERS[resolve_decoder(name)].partition(":")
    decoder: BatchDecoder = getattr(importlib.import_module(module), attribute)(shape)
    return decoder
