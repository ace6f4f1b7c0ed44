"""Specs and batches for the tests of the built-in models, in the form of the reader's."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tenfold.data.format.manifest import Feature
from tenfold.data.format.statistics.feature_statistics import FeatureStatistics, SplitStatistics
from tenfold.models.model_spec import ModelSpec
from tenfold.models.train_config import TrainConfig
from tenfold.models.training.build import build_model

LOAD = """
import sys, keras
model = keras.saving.load_model(sys.argv[1])
assert not any(name.partition(".")[0] == "tenfold" for name in sys.modules)
print("weights", len(model.weights))
"""


def numbers(name: str, low: float, high: float, **others: Any) -> FeatureStatistics:
    """Statistics of numbers from `low` to `high`."""
    middle, quarter = (low + high) / 2, (high - low) / 4
    return FeatureStatistics(name, minimum=low, maximum=high, mean=middle, std=quarter, **others)


def spec(
    inputs: Sequence[Feature],
    targets: Sequence[Feature] = (),
    *statistics: FeatureStatistics,
    classes: int = 0,
    image_shape: tuple[int, int, int] | None = None,
) -> ModelSpec:
    """A spec of a run with these features."""
    return ModelSpec(
        tuple(inputs),
        image_shape,
        classes,
        32,
        5,
        1,
        seed=0,
        targets=tuple(targets),
        statistics=SplitStatistics(100, statistics) if statistics else None,
    )


def built(name: str, model_spec: ModelSpec, *, precision: str = "float32") -> keras.Model:
    """Return the compiled model as the trainer builds it."""
    config = TrainConfig("shards", "run", model=name, precision=precision)
    try:
        return build_model(config, model_spec)
    finally:
        keras.mixed_precision.set_dtype_policy("float32")


def train(model: keras.Model, x: Any, y: Any, *, steps: int = 1) -> list[float]:
    """Train on one batch in a graph under the default strategy; return the loss of each step."""
    strategy = tf.distribute.get_strategy()

    def step(x: Any, y: Any) -> tf.Tensor:
        with tf.GradientTape() as tape:
            predicted = model(x, training=True)
            loss = model.compute_loss(x=x, y=y, y_pred=predicted)
        gradients = tape.gradient(loss, model.trainable_variables)
        model.optimizer.apply(gradients, model.trainable_variables)
        model.compute_metrics(x, y, predicted)
        return loss

    run = tf.function(lambda x, y: strategy.run(step, args=(x, y)), autograph=False)
    losses = [float(run(x, y)) for _ in range(steps)]
    assert all(np.isfinite(value).all() for value in model.get_weights())
    assert all(np.isfinite(value) for value in metrics(model).values())
    assert np.isfinite(losses).all()
    return losses


def metrics(model: keras.Model) -> dict[str, float]:
    """The values of the model's metrics by name."""
    return {name: float(value) for name, value in model.get_metrics_result().items()}


def reload(model: keras.Model, x: Any, folder: Path) -> None:
    """Check that the saved model loads in a process without Tenfold, and predicts the same."""
    path = str(folder / "model.keras")
    model.save(path)
    done = subprocess.run(
        [sys.executable, "-c", LOAD, path],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == f"weights {len(model.weights)}\n", done.stderr[-2000:]
    again = keras.saving.load_model(path)
    for one, two in zip(tf.nest.flatten(model(x)), tf.nest.flatten(again(x)), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)
