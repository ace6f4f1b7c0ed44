"""The decoder by TensorFlow's own ops, which is always installed."""

import tensorflow as tf

from tenfold.data.format.image_header import JPEG_MAGIC, MAX_PIXELS, PNG_MAGIC
from tenfold.data.reading.decoding.decoders import ImageShape


class TensorFlowDecoder:
    """Decodes JPEG, PNG, GIF (its first frame) and BMP; resizes bilinearly."""

    def __init__(self, shape: ImageShape) -> None:
        self._shape = shape

    def __call__(self, encoded: tf.Tensor, crops: tf.Tensor | None) -> tf.Tensor:
        """See `GraphDecoder`."""
        spec = tf.TensorSpec(self._shape, tf.uint8)
        if crops is None:
            return tf.map_fn(self._decode_whole, encoded, fn_output_signature=spec)
        return tf.map_fn(self._decode_crop, (encoded, crops), fn_output_signature=spec)

    def _decode_whole(self, encoded: tf.Tensor) -> tf.Tensor:
        return self._resize(self._decode(encoded))

    def _decode_crop(self, item: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        encoded, crop = item
        image = self._decode(encoded)
        size = tf.cast(tf.shape(image)[:2], tf.float32)
        begin = tf.cast(tf.floor(crop[:2] * size), tf.int32)
        extent = tf.cast(tf.maximum(tf.floor(crop[2:4] * size), 1), tf.int32)
        window = tf.slice(image, tf.pad(begin, [[0, 1]]), tf.concat([extent, [-1]], axis=0))
        resized = self._resize(window)
        return tf.cond(crop[4] > 0, lambda: resized[:, ::-1], lambda: resized)

    def _decode(self, encoded: tf.Tensor) -> tf.Tensor:
        return decode_image(encoded, self._shape[2])

    def _resize(self, image: tf.Tensor) -> tf.Tensor:
        resized = tf.image.resize(image, self._shape[:2], method="bilinear", antialias=False)
        return tf.ensure_shape(tf.cast(tf.round(resized), tf.uint8), self._shape)


def decode_image(encoded: tf.Tensor, channels: int) -> tf.Tensor:
    """Return uint8 [height, width, channels] of one image; an error names its size if too large.

    The header is checked first, before TensorFlow allocates memory for the pixels.
    """
    pixels = _num_pixels(encoded)
    limit = tf.debugging.Assert(
        pixels <= MAX_PIXELS,
        [f"the image has more than the {MAX_PIXELS:,} pixels allowed:", pixels],
    )
    with tf.control_dependencies([limit] if limit is not None else []):  # None if eager
        image = tf.identity(encoded)
        return tf.io.decode_image(image, channels=channels, expand_animations=False)


def _num_pixels(encoded: tf.Tensor) -> tf.Tensor:
    """Return the pixels that the header of a JPEG, PNG or GIF claims, int64.

    Other formats have a use for every pixel's bytes, so their number has no limit of its own.
    """
    head = tf.cast(tf.io.decode_raw(encoded, tf.uint8, fixed_length=24), tf.int64)

    def starts_with(magic: bytes) -> tf.Tensor:
        return tf.reduce_all(head[: len(magic)] == list(magic))

    def product(begin: int, weights: list[int]) -> tf.Tensor:
        """Return the product of two neighbouring numbers of `len(weights)` bytes each."""
        sides = tf.reshape(head[begin : begin + 2 * len(weights)], [2, len(weights)])
        return tf.reduce_prod(tf.reduce_sum(sides * weights, axis=1))

    def of_jpeg() -> tf.Tensor:
        shape = tf.cast(tf.image.extract_jpeg_shape(encoded), tf.int64)
        return shape[0] * shape[1]

    def of_other() -> tf.Tensor:
        png = product(16, [1 << 24, 1 << 16, 1 << 8, 1])  # big-endian
        gif = product(6, [1, 1 << 8])  # little-endian
        zero = tf.zeros([], tf.int64)
        return tf.where(starts_with(PNG_MAGIC), png, tf.where(starts_with(b"GIF8"), gif, zero))

    return tf.cond(starts_with(JPEG_MAGIC), of_jpeg, of_other)
