"""The decoder by TensorFlow's own ops, which is always installed."""

import tensorflow as tf

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
        return tf.io.decode_image(encoded, channels=self._shape[2], expand_animations=False)

    def _resize(self, image: tf.Tensor) -> tf.Tensor:
        resized = tf.image.resize(image, self._shape[:2], method="bilinear", antialias=False)
        return tf.ensure_shape(tf.cast(tf.round(resized), tf.uint8), self._shape)
