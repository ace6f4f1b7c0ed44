"""A small model, and shards of rows that it is evaluated on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tenfold.data import LayoutPolicy, write_shards
from tenfold.models.inference.inference_config import EVALUATE, InferenceConfig


class QuietReporter:
    """Implements `InferenceReporter`; keeps the steps."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, int, int]] = []

    def enter(self, phase: str) -> None:
        """Ignore the phase."""

    def step(self, step: int, total_steps: int, records: int) -> None:
        """Keep the step."""
        self.steps.append((step, total_steps, records))


@pytest.fixture
def reporter() -> QuietReporter:
    return QuietReporter()


@pytest.fixture
def row_shards(tmp_path: Path) -> Path:
    """103 rows of three numbers, a label and a name, in six shards."""
    import numpy as np

    rng = np.random.default_rng(3)
    source, output = tmp_path / "rows.npz", tmp_path / "shards"
    names = np.array([f"row {number}".encode() for number in range(103)])
    values = rng.normal(size=(103, 3)).astype(np.float32)
    np.savez(source, x=values, label=rng.integers(0, 4, 103), name=names)
    policy = LayoutPolicy(num_workers=1, min_shard_bytes=1, shards_per_worker=6)
    write_shards(str(source), str(output), policy=policy)
    return output


@pytest.fixture
def make_config(row_shards: Path, tmp_path: Path) -> Callable[..., InferenceConfig]:
    def make(task: str = EVALUATE, **changes: Any) -> InferenceConfig:
        model = str(tmp_path / "model.keras")
        own = {"model": model, "shards": str(row_shards), "split": "train"}
        return InferenceConfig(task, **{**own, "global_batch_size": 16, **changes})

    return make


@pytest.fixture
def save_model(tmp_path: Path) -> Callable[..., Any]:
    """Make a model of x and name, save it as model.keras, and return it."""
    import keras

    def save(*, compiled: bool = True, outputs: int = 1) -> Any:
        keras.utils.set_random_seed(1)
        inputs = {
            "x": keras.Input((3,), name="x"),
            "name": keras.Input((), dtype="string", name="name"),
        }
        hidden = keras.layers.Dense(4, activation="softmax", name="classes")(inputs["x"])
        every = [hidden, keras.layers.Dense(1, name="score")(inputs["x"])]
        model = keras.Model(inputs, every[0] if outputs == 1 else every)
        if compiled:
            model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
        model.save(tmp_path / "model.keras")
        return model

    return save
