"""Models that cannot train on parts of a batch that differ in size; gradients that are clipped."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tenfold.data.errors import UserError
from tenfold.launcher.job.events import UNEVEN_PARTS_ERROR
from tenfold.models.training.steps import TrainSteps, UnevenPartsError


class _OwnStep(keras.Model):
    def train_step(self, data):
        return super().train_step(data)


def _make_model(
    *layers: keras.Layer, kind: type = keras.Model, reduction: str = ""
) -> keras.Model:
    inputs = keras.Input((4,))
    outputs = inputs
    for layer in (*layers, keras.layers.Dense(2)):
        outputs = layer(outputs)
    model: keras.Model = kind(inputs, outputs, name="net")
    loss = keras.losses.MeanSquaredError(reduction=reduction or "sum_over_batch_size")
    model.compile("sgd", loss)
    return model


@pytest.mark.parametrize(
    ("model", "empty_parts", "message"),
    [
        (_make_model(kind=_OwnStep), False, "model 'net' has a train_step of its own"),
        (_make_model(reduction="sum"), False, "model 'net' has a loss with reduction='sum'"),
        (
            _make_model(keras.layers.BatchNormalization(synchronized=True, name="norm")),
            True,
            "layer 'norm' normalizes over all replicas",
        ),
    ],
)
def test_uneven_parts_are_refused(model: keras.Model, empty_parts: bool, message: str) -> None:
    strategy = tf.distribute.get_strategy()
    TrainSteps(model, strategy, max_steps=1)
    with pytest.raises(UnevenPartsError, match=message) as raised:
        TrainSteps(model, strategy, max_steps=1, equal_parts=False, empty_parts=empty_parts)
    assert "--remainder other than pad" in str(raised.value)
    assert type(raised.value).__name__ == UNEVEN_PARTS_ERROR


def test_sparse_gradients_are_clipped() -> None:
    tokens = keras.Input((3,), dtype="int64")
    model = keras.Model(tokens, keras.layers.Embedding(5, 2)(tokens))
    model.compile(keras.optimizers.SGD(1.0, global_clipnorm=0.5), "mse")
    model.optimizer.build(model.trainable_variables)
    (before,) = model.get_weights()
    steps = TrainSteps(model, tf.distribute.get_strategy(), max_steps=1)
    x, y = tf.constant([[0, 1, 1]], tf.int64), tf.fill([1, 3, 2], 100.0)
    steps._standard_step(x, y, None, tf.constant(1.0))
    (after,) = model.get_weights()
    assert np.linalg.norm(after - before) == pytest.approx(0.5, rel=1e-5)


@pytest.mark.parametrize("clips", [False, True])
def test_gradients_are_exchanged_once_as_bfloat16(
    clips: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tf.DType] = []
    all_reduce = tf.distribute.ReplicaContext.all_reduce

    def counted(self: Any, op: Any, value: Any, options: Any = None) -> Any:
        sent.extend(tensor.dtype for tensor in tf.nest.flatten(value))
        return all_reduce(self, op, value, options)

    monkeypatch.setattr(tf.distribute.ReplicaContext, "all_reduce", counted)
    model = keras.Sequential(
        [keras.Input((1,)), keras.layers.Dense(1, kernel_initializer="zeros")]
    )
    clip = 100.0 if clips else None
    model.compile(keras.optimizers.SGD(1.0, global_clipnorm=clip), "mean_squared_error")
    model.optimizer.build(model.trainable_variables)
    steps = TrainSteps(model, tf.distribute.get_strategy(), max_steps=1, gradient_dtype="bfloat16")
    x, y = tf.constant([[1.0]]), tf.constant([[-0.501]])
    steps._standard_step(x, y, None, tf.constant(1.0))
    assert sent == [tf.bfloat16] * 2
    # The gradient is 1.002, which bfloat16 rounds to 1.
    assert model.get_weights()[0].item() == -1.0


def test_optimizer_that_sums_by_itself_is_refused() -> None:
    model = _make_model()
    model.optimizer = keras.optimizers.LossScaleOptimizer(model.optimizer)
    strategy = tf.distribute.get_strategy()
    TrainSteps(model, strategy, max_steps=1)
    with pytest.raises(UserError, match="--gradient_dtype=bfloat16 is not for this optimizer"):
        TrainSteps(model, strategy, max_steps=1, gradient_dtype="bfloat16")
    with pytest.raises(UserError, match="leave out --accumulate"):
        TrainSteps(_make_model(kind=_OwnStep), strategy, max_steps=1, accumulate=2)
