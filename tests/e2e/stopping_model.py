"""A small model whose training fails at step STOP_AT."""

import os

import keras
import tensorflow as tf

from tenfold.models.model_spec import ModelSpec

STOP_AT = int(os.environ.get("STOP_AT", "-1"))


class Stopping(keras.Model):
    def train_step(self, data):
        tf.debugging.assert_none_equal(
            tf.cast(self.optimizer.iterations.value, tf.int64),
            tf.constant(STOP_AT, tf.int64),
            message="told to stop here",
        )
        return super().train_step(data)


def build(spec: ModelSpec) -> keras.Model:
    inputs = keras.Input(spec.image_shape)
    hidden = keras.layers.Dense(32, activation="relu")(
        keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs))
    )
    outputs = keras.layers.Dense(spec.num_classes, activation="softmax")(hidden)
    return Stopping(inputs, outputs)
