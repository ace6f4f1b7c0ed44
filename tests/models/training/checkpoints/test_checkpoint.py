import json
import os
import subprocess
import sys
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenfold.data.errors import UserError
from tenfold.data.reading.read_options import Position
from tenfold.data.storage.open_folder import open_folder
from tenfold.models.train_config import TrainConfig
from tenfold.models.training.checkpoints.checkpoint import (
    Checkpoint,
    RunState,
    check_fits,
    check_same_run,
    checkpoint_name,
    checkpoint_names,
    newest_checkpoint,
    save_checkpoint,
)

STATE = RunState(
    Position(2, 30), seed=5, global_batch_size=64, loss_sum=0.1, fingerprint=2**64 - 1
)
VALUES = (np.arange(6, dtype="float32").reshape(2, 3), np.array(7, "int64"), np.zeros((0,), "f4"))
PATHS = ("dense/kernel", "iterations", "nothing")


def checkpoint_at(epoch: int, step: int) -> Checkpoint:
    return Checkpoint(replace(STATE, position=Position(epoch, step)), VALUES, PATHS)


def test_checkpoint_survives_a_round_trip(tmp_path: Path) -> None:
    folder = open_folder(str(tmp_path / "checkpoints"))
    save_checkpoint(folder, Checkpoint(STATE, VALUES, PATHS), keep=1)
    found = newest_checkpoint(folder)
    assert found is not None
    assert found.state == STATE
    assert found.paths == PATHS
    for value, expected in zip(found.values, VALUES, strict=True):
        assert value.dtype == expected.dtype
        np.testing.assert_array_equal(value, expected)


def test_newest_of_an_empty_folder_is_none(tmp_path: Path) -> None:
    assert newest_checkpoint(open_folder(str(tmp_path / "nowhere"))) is None


def test_save_keeps_only_the_newest(tmp_path: Path) -> None:
    folder = open_folder(str(tmp_path))
    for epoch, step in [(0, 10), (0, 20), (1, 0), (1, 10)]:
        save_checkpoint(folder, checkpoint_at(epoch, step), keep=2)
    assert checkpoint_names(folder) == [
        checkpoint_name(Position(1, 10)),
        checkpoint_name(Position(1, 0)),
    ]


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_damaged_checkpoint_falls_back_to_the_previous(tmp_path: Path, damage: str) -> None:
    folder = open_folder(str(tmp_path))
    save_checkpoint(folder, checkpoint_at(0, 10), keep=2)
    newest = Path(save_checkpoint(folder, checkpoint_at(0, 20), keep=2))
    data = bytearray(newest.read_bytes())
    middle = data.find(VALUES[0].tobytes())
    data[middle] ^= 1
    newest.write_bytes(bytes({"cut": data[:-40], "flipped": data, "empty": b""}[damage]))
    found = newest_checkpoint(folder)
    assert found is not None
    assert found.state.position == Position(0, 10)


@pytest.mark.timeout(120)
def test_kill_at_any_moment_leaves_intact_checkpoints(tmp_path: Path) -> None:
    """The moments are every system call, and several sizes of the file."""
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("killed_saves.py"), tmp_path / "checkpoints"],
        capture_output=True,
        text=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # a fork needs a single thread
    )
    assert done.returncode == 0, done.stderr[-3000:]
    deaths = json.loads(done.stdout)
    assert len(deaths) > 20
    # Two are kept: first the two old ones, then the new one too, then the oldest is removed.
    assert [key for key, _ in groupby(d["found"] for d in deaths)] == [[1, 2], [0, 1, 2], [0, 1]]
    assert all(death["next"] == [0, 1] for death in deaths)
    assert not any(death["besides"] for death in deaths), "half-written files are not removed"


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**9)), min_size=2, max_size=9))
def test_checkpoint_names_sort_by_position(positions: list[tuple[int, int]]) -> None:
    class Listing:
        path = ""

        def sizes(self, prefix: str = "") -> dict[str, int]:
            return {checkpoint_name(Position(*position)): 1 for position in positions}

    newest = checkpoint_names(Listing())[0]  # type: ignore[arg-type]
    assert newest == checkpoint_name(Position(*max(positions)))


@pytest.mark.parametrize(
    ("paths", "shapes", "word"),
    [
        (PATHS[:2], [(2, 3), ()], "3 variables, the model 2"),
        (PATHS, [(3, 2), (), (0,)], "'dense/kernel' has shape (3, 2)"),
    ],
)
def test_checkpoint_of_another_model_is_refused(
    paths: tuple[str, ...], shapes: list[tuple[int, ...]], word: str
) -> None:
    with pytest.raises(UserError, match=word.replace("(", r"\(").replace(")", r"\)")):
        check_fits(Checkpoint(STATE, VALUES, PATHS), paths, shapes)


def test_checkpoint_of_another_run_is_refused() -> None:
    config = TrainConfig("shards", "run", seed=5, global_batch_size=64)
    check_same_run(STATE, config)
    with pytest.raises(UserError, match="--seed=5"):
        check_same_run(STATE, replace(config, seed=6))
    with pytest.raises(UserError, match="--global_batch_size=64"):
        check_same_run(STATE, replace(config, global_batch_size=32))
    with pytest.raises(UserError, match="--remainder=drop"):
        check_same_run(STATE, replace(config, remainder="repeat"))
