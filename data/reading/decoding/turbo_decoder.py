"""The fast decoder: libjpeg-turbo and OpenCV's resize, straight into the batch's array.

Needs ``pip install 'tenfold[fast]'``. One call decodes a whole batch; both libraries release the
interpreter lock meanwhile. JPEGs of one or three channels and 8-bit PNGs are decoded here, all
other images by TensorFlow's ops.
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

# Colour spaces for which libjpeg-turbo and TensorFlow's DecodeJpeg give the same colours.
_JPEG_COLORS: Final = ("YCbCr", "Gray")
_COLORS: Final = {1: "GRAY", 3: "RGB"}

_WHOLE_IMAGE: Final = (0.0, 0.0, 1.0, 1.0, 0.0)


class TurboDecoder:
    """Decodes at full size; equal to TensorFlow's decoder within one level of 255."""

    scaled = False

    def __init__(self, shape: ImageShape) -> None:
        self._height, self._width, self._channels = shape
        self._size = (self._width, self._height)
        self._color = _COLORS[self._channels]
        self._decoded = ThreadBuffer()
        self._batches = BatchBufferPool()
        # tf.data already decodes several batches in parallel.
        cv2.setNumThreads(1)

    def decode_batch(
        self,
        encoded: Sequence[bytes | memoryview],
        crops: Any,
        describe: Callable[[int], str],
    ) -> Any:
        """See `PythonDecoder`."""
        batch = self._batches.take((len(encoded), self._height, self._width, self._channels))
        index = 0
        try:
            for index, data in enumerate(encoded):
                if crops is None:
                    self._resize(self._decode(data, _WHOLE_IMAGE), batch[index])
                else:
                    self._decode_crop(data, crops[index], batch[index])
        except (ValueError, cv2.error, tf.errors.OpError) as error:
            raise ValueError(f"{describe(index)} cannot be decoded: {error}") from error
        return batch

    def _decode_crop(self, data: bytes | memoryview, crop: Any, out: Any) -> None:
        """Write the crop of one image into `out` [height, width, channels]."""
        image = self._decode(data, crop)
        height, width = image.shape[:2]
        # The products are rounded in float32, as TensorFlow's decoder rounds them.
        top, left = int(np.float32(crop[0]) * height), int(np.float32(crop[1]) * width)
        bottom = top + max(1, int(np.float32(crop[2]) * height))
        right = left + max(1, int(np.float32(crop[3]) * width))
        resized = self._resize(image[top:bottom, left:right], out)
        if crop[4] > 0:
            resized[...] = cv2.flip(resized, 1)

    def _resize(self, image: Any, out: Any) -> Any:
        """Write the resized image into `out`; return it without a single channel's axis."""
        flat = out[:, :, 0] if self._channels == 1 else out
        return cv2.resize(image, self._size, flat, interpolation=cv2.INTER_LINEAR)

    def _decode(self, data: bytes | memoryview, crop: Any) -> Any:
        """Return uint8 [h, w, channels] of one image, valid until the thread's next call."""
        if data[: len(JPEG_MAGIC)] == JPEG_MAGIC:
            height, width, color, _ = simplejpeg.decode_jpeg_header(data)
            if color in _JPEG_COLORS:
                return simplejpeg.decode_jpeg(
                    data,
                    self._color,
                    fastdct=True,  # as TensorFlow does
                    buffer=self._decoded.get(height * width * self._channels),
                    **(self._min_size(height, width, crop) if self.scaled else {}),
                )
        elif data[: len(PNG_MAGIC)] == PNG_MAGIC and _is_plain_png(data, self._channels):
            return _decode_png(data, self._channels)
        with tf.device("CPU"):
            pixels = tf.io.decode_image(
                bytes(data), channels=self._channels, expand_animations=False
            )
        return pixels.numpy()

    def _min_size(self, height: int, width: int, crop: Any) -> dict[str, int]:
        """Return the smallest size, for `decode_jpeg`, that a JPEG may be decoded at."""
        needed_height = math.ceil(self._height / float(crop[2]))
        needed_width = math.ceil(self._width / float(crop[3]))
        if height < 2 * needed_height or width < 2 * needed_width:
            return {}
        return {"min_height": needed_height, "min_width": needed_width}


class ScaledTurboDecoder(TurboDecoder):
    """Decodes JPEGs of at least twice the wanted size at a smaller size."""

    scaled = True


def _is_plain_png(data: bytes | memoryview, channels: int) -> bool:
    """Whether a PNG has 8 bits a channel and needs no colour conversion.

    IHDR is the first chunk: bit depth at byte 24, colour type at byte 25 (0 grey, 2 RGB).
    """
    depth_and_color = tuple(data[24:26])
    return depth_and_color == (8, 0) or (channels == 3 and depth_and_color == (8, 2))


def _decode_png(data: bytes | memoryview, channels: int) -> Any:
    flags = cv2.IMREAD_GRAYSCALE if channels == 1 else cv2.IMREAD_COLOR_RGB
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:
        raise ValueError("the PNG is damaged")
    return pixels
