"""Models that cannot train on parts of a batch that differ in size."""

import keras
import pytest
import tensorflow as tf

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
