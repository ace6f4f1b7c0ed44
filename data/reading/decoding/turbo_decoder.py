"""The fast decoder: libjpeg-turbo and OpenCV's resize, straight into the batch's own array.

Needs ``pip install 'tenfold[fast]'``. One call from the tf.data graph decodes a whole batch;
both libraries let other threads run meanwhile. JPEGs of three or one channels and 8-bit PNGs
are decoded here, whatever else TensorFlow decodes by its own ops.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import cv2
import numpy as np
import simplejpeg
import tensorflow as tf

from tenfold.data.format.image_header import JPEG_MAGIC, PNG_MAGIC
from tenfold.data.reading.decoding.buffers import BatchBufferPool, ThreadBuffer
from tenfold.data.reading.decoding.decoders import ImageShape
from tenfold.data.runtime.tensorflow_hooks import guarded_callback

# Where DecodeJpeg and this decoder are sure to agree on colours.
_JPEG_COLOURS: Final = ("YCbCr", "Gray")
_COLOURS: Final = {1: "GRAY", 3: "RGB"}

_WHOLE: Final = (0.0, 0.0, 1.0, 1.0, 0.0)


class TurboDecoder:
    """Decodes at full size, as TensorFlow does; equal to it within one level of 255."""

    scaled = False

    def __init__(self, shape: ImageShape) -> None:
        self._height, self._width, self._channels = shape
        self._size = (self._width, self._height)
        self._colours = _COLOURS[self._channels]
        self._decoded = ThreadBuffer()
        self._batches = BatchBufferPool()
        # tf.data's threads are the ones that run side by side.
        cv2.setNumThreads(1)

    def __call__(self, encoded: tf.Tensor, views: tf.Tensor | None) -> tf.Tensor:
        """Returns uint8 [n, height, width, channels]."""

        def decode(data: Any, views: Any = None) -> Any:
            return self.decode_batch(data.tolist(), views, "image {} of a batch".format)

        inputs = [encoded] if views is None else [encoded, views]
        images = tf.numpy_function(guarded_callback(decode), inputs, tf.uint8, stateful=False)
        return tf.ensure_shape(images, [None, self._height, self._width, self._channels])

    def decode_batch(
        self, encoded: Sequence[bytes | memoryview], views: Any, name_of: Callable[[int], str]
    ) -> Any:
        """Returns uint8 [n, height, width, channels]; `views` is float32 [n, 5] or None.

        Raises:
          ValueError: an image cannot be decoded; the message has its `name_of`.
        """
        out = self._batches.array((len(encoded), self._height, self._width, self._channels))
        at = 0
        try:
            for at, data in enumerate(encoded):
                if views is None:
                    self._resize(self._pixels(data, _WHOLE), out[at])
                else:
                    self._decode_view(data, views[at], out[at])
        except (ValueError, cv2.error, tf.errors.OpError) as error:
            raise ValueError(f"{name_of(at)} cannot be decoded: {error}") from error
        return out

    def _decode_view(self, data: bytes | memoryview, view: Any, out: Any) -> None:
        """Writes a view of one image into `out` [height, width, channels]."""
        image = self._pixels(data, view)
        height, width = image.shape[:2]
        top, left = int(np.float32(view[0]) * height), int(np.float32(view[1]) * width)
        bottom = top + max(1, int(np.float32(view[2]) * height))
        right = left + max(1, int(np.float32(view[3]) * width))
        resized = self._resize(image[top:bottom, left:right], out)
        if view[4] > 0:
            resized[...] = cv2.flip(resized, 1)

    def _resize(self, image: Any, out: Any) -> Any:
        """Writes a resized image into `out`; returns it without a single channel's axis."""
        flat = out[:, :, 0] if self._channels == 1 else out
        return cv2.resize(image, self._size, flat, interpolation=cv2.INTER_LINEAR)

    def _pixels(self, data: bytes | memoryview, view: Any) -> Any:
        """Returns uint8 [h, w, channels] of one image; valid until this thread's next."""
        if data[: len(JPEG_MAGIC)] == JPEG_MAGIC:
            height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
            if colours in _JPEG_COLOURS:
                return simplejpeg.decode_jpeg(
                    data,
                    self._colours,
                    fastdct=True,  # as TensorFlow does
                    buffer=self._decoded.of(height * width * self._channels),
                    **(self._at_least(height, width, view) if self.scaled else {}),
                )
        elif data[: len(PNG_MAGIC)] == PNG_MAGIC and _plain_png(data, self._channels):
            return _png(data, self._channels)
        with tf.device("CPU"):
            pixels = tf.io.decode_image(
                bytes(data), channels=self._channels, expand_animations=False
            )
        return pixels.numpy()

    def _at_least(self, height: int, width: int, view: Any) -> dict[str, int]:
        """Returns how small a JPEG of `height` × `width` may come out, for `decode_jpeg`."""
        needed_height = math.ceil(self._height / float(view[2]))
        needed_width = math.ceil(self._width / float(view[3]))
        if height < 2 * needed_height or width < 2 * needed_width:
            return {}
        return {"min_height": needed_height, "min_width": needed_width}


class ScaledTurboDecoder(TurboDecoder):
    """Decodes JPEGs of twice the wanted size and more at a smaller size."""

    scaled = True


def _plain_png(data: bytes | memoryview, channels: int) -> bool:
    """Says whether a PNG has 8 bits a channel and no colours that must be converted.

    Its header (IHDR) is the first chunk: bit depth at byte 24, colour type at byte 25 (0 grey,
    2 RGB).
    """
    depth_and_colour = tuple(data[24:26])
    return depth_and_colour == (8, 0) or (channels == 3 and depth_and_colour == (8, 2))


def _png(data: bytes | memoryview, channels: int) -> Any:
    flags = cv2.IMREAD_GRAYSCALE if channels == 1 else cv2.IMREAD_COLOR_RGB
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:
        raise ValueError("the PNG is damaged")
    return pixels
