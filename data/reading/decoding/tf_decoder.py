"""TensorFlow's own decoder, which is always there."""

import tensorflow as tf

from tenfold.data.reading.decoding.decoders import ImageShape


class TensorFlowDecoder:
    """TensorFlow's own ops: JPEG, PNG, GIF (its first frame) and BMP; bilinear resizing."""

    def __init__(self, shape: ImageShape) -> None:
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
        image = self._decoded(encoded)
        size = tf.cast(tf.shape(image)[:2], tf.float32)
        begin = tf.cast(tf.floor(view[:2] * size), tf.int32)
        extent = tf.cast(tf.maximum(tf.floor(view[2:4] * size), 1), tf.int32)
        cut = tf.slice(image, tf.pad(begin, [[0, 1]]), tf.concat([extent, [-1]], axis=0))
        resized = self._resized(cut)
        return tf.cond(view[4] > 0, lambda: resized[:, ::-1], lambda: resized)

    def _decoded(self, encoded: tf.Tensor) -> tf.Tensor:
        return tf.io.decode_image(encoded, channels=self._shape[2], expand_animations=False)

    def _resized(self, image: tf.Tensor) -> tf.Tensor:
        resized = tf.image.resize(image, self._shape[:2], method="bilinear", antialias=False)
        return tf.ensure_shape(tf.cast(tf.round(resized), tf.uint8), self._shape)
