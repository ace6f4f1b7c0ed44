"""Models of a user, for the tests of the training loop."""

import os

import keras
import tensorflow as tf

from tenfold.models.builtin import cnn
from tenfold.models.model_spec import ModelSpec


def clipped(spec: ModelSpec) -> keras.Model:
    """`cnn` with an optimizer whose clipping is strong enough to change the losses."""
    model = cnn.build(spec)
    model.compile(keras.optimizers.SGD(0.5, clipnorm=0.02), "sparse_categorical_crossentropy")
    return model


def regularised(spec: ModelSpec) -> keras.Model:
    """A model whose loss has a regularisation term, with several metrics."""
    model = keras.Sequential(
        [
            keras.Input(spec.image_shape),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(32, "relu", kernel_regularizer=keras.regularizers.L2(0.01)),
            keras.layers.Dense(spec.num_classes, "softmax"),
        ]
    )
    metrics = ["accuracy", keras.metrics.SparseTopKCategoricalAccuracy(2, name="top2")]
    model.compile("adam", "sparse_categorical_crossentropy", metrics=metrics)
    return model


def overflowing(spec: ModelSpec) -> keras.Model:
    """A model whose loss scale grows until the gradients overflow on one of the workers."""
    model = keras.Sequential(
        [
            keras.Input(spec.image_shape),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(32, "relu", dtype="mixed_float16"),
            keras.layers.Dense(spec.num_classes, "softmax", dtype="float32"),
        ]
    )
    scaled = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.Adam(0.01), initial_scale=2.0**20, dynamic_growth_steps=2
    )
    model.compile(scaled, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


@keras.saving.register_keras_serializable("own_models")
class OwnStep(keras.Model):
    """A subclass with a training step of its own."""

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self.flat = keras.layers.Flatten()
        self.dense = keras.layers.Dense(10, "softmax")

    def call(self, x):
        return self.dense(self.flat(x) / 255.0)

    def train_step(self, data):
        logs = super().train_step(data)
        return {**logs, "own": logs["loss"] * 0 + 42.0}


def own_step() -> keras.Model:
    """A subclassed model; the function takes no spec."""
    model = OwnStep()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def not_a_model(spec: ModelSpec) -> str:
    """Return an object that is not a model."""
    return "a model"


def raises(spec: ModelSpec) -> keras.Model:
    """Raise a KeyError."""
    layers: dict[str, keras.Model] = {}
    return layers["no such layer"]


class StopAfterTwo(keras.callbacks.Callback):
    """Records its calls, and ends the training after the second epoch."""

    def on_train_begin(self, logs=None):
        self.calls = ["train"]

    def on_train_batch_end(self, batch, logs=None):
        self.calls.append(f"batch {batch}")

    def on_epoch_end(self, epoch, logs=None):
        self.calls.append(f"epoch {epoch}: {', '.join(sorted(logs))}")
        self.model.stop_training = epoch == 1

    def on_train_end(self, logs=None):
        print("CALLS", self.calls)


class Poison(keras.layers.Layer):
    """Gives NaN for images whose pixels sum up to $POISON_SUM or more."""

    def call(self, x):
        sums = keras.ops.sum(x, axis=(1, 2, 3), keepdims=True)
        return keras.ops.where(sums >= float(os.environ["POISON_SUM"]), float("nan"), x)


class Bomb(keras.layers.Layer):
    """Gives NaN in its training call number `at`: as output, or only as gradient."""

    def __init__(self, at: int, *, gradient: bool, **kwargs) -> None:
        super().__init__(**kwargs)
        self.at, self.gradient = at, gradient

    def build(self, shape):
        self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False, name="calls")

    def call(self, x, training=False):
        if not training:
            return x
        self.calls.assign_add(1.0)
        factor = tf.where(tf.convert_to_tensor(self.calls) == self.at, float("nan"), 1.0)

        @tf.custom_gradient
        def identity(value):
            return value, lambda upstream: upstream * factor

        return identity(x) if self.gradient else x * factor


def _with(layer, spec: ModelSpec) -> keras.Model:
    image, flat = keras.Input(spec.image_shape), keras.layers.Flatten()
    hidden = keras.layers.Dense(32, "tanh", name="hidden")(flat(layer(image)))
    outputs = keras.layers.Dense(spec.num_classes, "softmax", name="out")(hidden / 16.0)
    return keras.Model(image, outputs)


def poisoned(spec: ModelSpec) -> keras.Model:
    """A model that gives NaN for some images."""
    return _with(Poison(name="poison"), spec)


def poisoned_statistics(spec: ModelSpec) -> keras.Model:
    """A model that gives NaN for some images, also to the moving means of its normalization."""
    image = keras.Input(spec.image_shape)
    hidden = keras.layers.BatchNormalization()(Poison()(image))
    outputs = keras.layers.Dense(spec.num_classes, "softmax")(keras.layers.Flatten()(hidden))
    return keras.Model(image, outputs)


def always_nan(spec: ModelSpec) -> keras.Model:
    """A model whose every loss is NaN."""
    return _with(keras.layers.Rescaling(float("nan")), spec)


def bad_loss(spec: ModelSpec) -> keras.Model:
    """A model whose loss is NaN in step 30."""
    return _with(Bomb(30, gradient=False, name="bomb"), spec)


def bad_gradient(spec: ModelSpec) -> keras.Model:
    """A model whose gradient is NaN in step 25, the last of the first epoch."""
    image = keras.Input(spec.image_shape)
    hidden = keras.layers.Dense(32, name="hidden")(keras.layers.Flatten()(image))
    hidden = Bomb(25, gradient=True, name="bomb")(hidden / 16.0)
    outputs = keras.layers.Dense(spec.num_classes, "softmax", name="out")(hidden)
    return keras.Model(image, outputs)
