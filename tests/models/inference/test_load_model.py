"""The model of a run: built as in its training, whatever shards it is fed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tenfold.data import LayoutPolicy, write_shards
from tenfold.data.storage.read_manifest import read_manifest
from tenfold.models.inference.load_model import ModelFile, load_model
from tenfold.models.train_config import TrainConfig


@pytest.fixture
def write_ages(tmp_path: Path) -> Any:
    """Write shards of rows with these ages; return their folder."""

    def write(name: str, ages: list[float]) -> str:
        source, output = tmp_path / f"{name}.npz", tmp_path / name
        np.savez(source, age=np.array(ages, np.float32), label=np.arange(len(ages)) % 2)
        write_shards(str(source), str(output), policy=LayoutPolicy(num_workers=1))
        return str(output)

    return write


def test_statistics_are_those_of_the_training(write_ages: Any, tmp_path: Path) -> None:
    old, young = write_ages("old", [60, 70, 80, 90]), write_ages("young", [1, 2, 3, 4])
    file = ModelFile("run", b"", TrainConfig(old, str(tmp_path / "run"), model="mlp"))
    model = load_model(file, read_manifest(young))
    means = [v.numpy().tolist() for v in model.non_trainable_variables if "mean" in v.path]
    assert means == [[75.0]]


def test_missing_training_shards_are_no_error(write_ages: Any, tmp_path: Path) -> None:
    young = write_ages("young", [1, 2, 3, 4])
    file = ModelFile("run", b"", TrainConfig(str(tmp_path / "gone"), "run", model="mlp"))
    assert load_model(file, read_manifest(young)).built
