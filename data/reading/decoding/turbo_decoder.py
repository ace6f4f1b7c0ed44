"""The fast decoder: libjpeg-turbo and OpenCV's resize, straight into the batch's array.

Needs ``pip install 'tenfold[fast]'``. One call decodes a whole batch; both libraries release the
interpreter lock meanwhile. JPEGs of one or three channels and 8-bit PNGs are decoded here. All
other images, and those that these libraries refuse, are decoded by TensorFlow's ops: an image
can be decoded here exactly where TensorFlow can decode it. TensorFlow is imported only then.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import cv2
import numpy as np
import simplejpeg

from tenfold.data.format.image_header import JPEG_MAGIC, PNG_MAGIC, check_pixels, image_shape
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
        except (ValueError, cv2.error) as error:
            raise ValueError(f"{describe(index)} cannot be decoded: {error}") from error
        return batch

    def _decode_crop(self, data: bytes | memoryview, crop: Any, out: Any) -> None:
        """Write the crop of one image into `out` [height, width, channels]."""
        image = self._decode(data, crop)
        height, width = image.shape[:2]
        # Products in float32, as in TensorFlow's decoder; NumPy 1 multiplies by an int in float64.
        size = np.array((height, width, height, width), np.float32)
        top, left, rows, columns = (np.asarray(crop[:4], np.float32) * size).astype(int).tolist()
        bottom, right = top + max(1, rows), left + max(1, columns)
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
            pixels = self._decode_jpeg(data, crop)
        elif data[: len(PNG_MAGIC)] == PNG_MAGIC and _is_plain_png(data, self._channels):
            pixels = _decode_png(data, self._channels)
        else:
            pixels = None
        return _decode_by_tensorflow(data, self._channels) if pixels is None else pixels

    def _decode_jpeg(self, data: bytes | memoryview, crop: Any) -> Any:
        """Return the pixels of a JPEG; None where libjpeg-turbo has an error or a warning."""
        try:
            height, width, color, _ = simplejpeg.decode_jpeg_header(data)
        except ValueError:
            return None
        if color not in _JPEG_COLORS:
            return None
        check_pixels(height, width)
        try:
            return simplejpeg.decode_jpeg(
                data,
                self._color,
                fastdct=True,  # as TensorFlow does
                buffer=self._decoded.get(height * width * self._channels),
                **(self._min_size(height, width, crop) if self.scaled else {}),
            )
        except ValueError:
            return None

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
    """Return the pixels of a PNG; None where its chunks are damaged or OpenCV has an error.

    OpenCV decodes some PNGs with damaged chunks that TensorFlow refuses.
    """
    flags = cv2.IMREAD_GRAYSCALE if channels == 1 else cv2.IMREAD_COLOR_RGB
    try:
        image_shape(bytes(data))
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    except (ValueError, cv2.error):
        return None


def _decode_by_tensorflow(data: bytes | memoryview, channels: int) -> Any:
    import tensorflow as tf

    from tenfold.data.reading.decoding.tf_decoder import decode_image

    try:
        with tf.device("CPU"):
            return decode_image(tf.constant(bytes(data)), channels).numpy()
    except tf.errors.OpError as error:
        raise ValueError(error.message) from error
