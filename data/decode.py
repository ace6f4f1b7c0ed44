"""Decoders: from a batch of encoded pictures to one array of pixels, all of one size.

A decoder is a name in `DECODERS`. All of them give the same pictures to within one level of
255, but for ``turbo_scaled``: it decodes JPEGs of twice the wanted size and more at a half, a
quarter or an eighth of their size, which is faster and smoother.
"""

import importlib
import importlib.util
from typing import Final, Protocol

import tensorflow as tf

from tenfold.data.errors import UserError

AUTO: Final = "auto"
DECODERS: Final = {
    "tf": "tenfold.data.decode:TensorFlowDecoder",
    "turbo": "tenfold.data.decode_turbo:TurboDecoder",
    "turbo_scaled": "tenfold.data.decode_turbo:ScaledTurboDecoder",
}
_TURBO_NEEDS: Final = ("simplejpeg", "cv2")

# (height, width, channels)
PictureShape = tuple[int, int, int]


class BatchDecoder(Protocol):
    """Decodes, cuts, resizes and mirrors a batch of pictures inside a tf.data graph."""

    def __call__(self, encoded: tf.Tensor, views: tf.Tensor | None) -> tf.Tensor:
        """Returns uint8 [n, height, width, channels] of `encoded`, string [n].

        `views` [n, 5] is what `augment.draw_views` returns; None takes whole pictures.
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


def make_decoder(name: str, shape: PictureShape) -> BatchDecoder:
    """Returns the decoder called `name` for pictures of `shape`.

    Raises:
      UserError: see `resolve_decoder`.
    """
    module, _, attribute = DECODERS[resolve_decoder(name)].partition(":")
    decoder: BatchDecoder = getattr(importlib.import_module(module), attribute)(shape)
    return decoder


class TensorFlowDecoder:
    """TensorFlow's own ops: JPEG, PNG, GIF (its first frame) and BMP; bilinear resizing."""

    def __init__(self, shape: PictureShape) -> None:
        self._shape = shape

    def __call__(self, encoded: tf.Tensor, views: tf.Tensor | None) -> tf.Tensor:
        """Returns uint8 [n, height, width, channels]."""
        spec = tf.TensorSpec(self._shape, tf.uint8)
        if views is None:
            return tf.map_fn(self._whole, encoded, fn_output_signature=spec)
        return tf.map_fn(self._view, (encoded, views), fn_output_signature=spec)

    def _whole(self, encoded: tf.Tensor) -> tf.Tensor:
        return self._resized(self._decoded(encoded))

    def _view(self, item: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        encoded, view = item
        picture = self._decoded(encoded)
        size = tf.cast(tf.shape(picture)[:2], tf.float32)
        begin = tf.cast(tf.floor(view[:2] * size), tf.int32)
        extent = tf.cast(tf.maximum(tf.floor(view[2:4] * size), 1), tf.int32)
        cut = tf.slice(picture, tf.pad(begin, [[0, 1]]), tf.concat([extent, [-1]], axis=0))
        resized = self._resized(cut)
        return tf.cond(view[4] > 0, lambda: resized[:, ::-1], lambda: resized)

    def _decoded(self, encoded: tf.Tensor) -> tf.Tensor:
        return tf.io.decode_image(encoded, channels=self._shape[2], expand_animations=False)

    def _resized(self, picture: tf.Tensor) -> tf.Tensor:
        resized = tf.image.resize(picture, self._shape[:2], method="bilinear", antialias=False)
        return tf.ensure_shape(tf.cast(tf.round(resized), tf.uint8), self._shape)
