"""Checkpoints that are written while the training goes on."""

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tenfold.data.reading.read_options import Position
from tenfold.data.storage.local_folder import LocalFolder
from tenfold.models.training.checkpoints.checkpoint import Checkpoint, RunState, checkpoint_names
from tenfold.models.training.checkpoints.checkpoint_writer import CheckpointWriter

DELAYED = """
import sys, threading
from tenfold.data.reading.read_options import WorkerPlace
from tenfold.models.train_config import TrainConfig
from tenfold.models.training.checkpoints import checkpoint_writer
from tenfold.models.training.loop import train
from tenfold.models.training.reporting.reporter import NullReporter
import tensorflow as tf

shards, run_dir, delay = sys.argv[1:]
save, may_save, reported = checkpoint_writer.save_checkpoint, threading.Semaphore(0), []

class Reporter(NullReporter):
    def step(self, metrics, *, total_steps):
        if metrics.step % 5 == 4 or metrics.step > 20:  # four steps after the checkpoint
            may_save.release()

    def checkpoint(self, path, *, epoch, step):
        reported.append(step)

def save_later(*args, **kwargs):
    may_save.acquire()
    return save(*args, **kwargs)

if delay == "delayed":
    checkpoint_writer.save_checkpoint = save_later
config = TrainConfig(
    shards, run_dir, model="mlp", steps_per_execution=1, checkpoint_every_steps=5,
    keep_checkpoints=9,
)
train(config, strategy=tf.distribute.get_strategy(), place=WorkerPlace(), reporter=Reporter())
print(reported)
"""


class BlockedFolder(LocalFolder):
    """Writes a file when it is told to."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.may_write = threading.Event()

    def write(self, name: str, data: bytes) -> None:
        assert self.may_write.wait(60)
        super().write(name, data)


def checkpoint_at(step: int) -> Checkpoint:
    state = RunState(Position(0, step), seed=1, global_batch_size=8)
    return Checkpoint(state, (np.full(10, step),), ("kernel",))


def test_saving_goes_on_in_the_background(tmp_path: Path) -> None:
    folder = BlockedFolder(str(tmp_path))
    writer = CheckpointWriter(folder, keep=2)
    writer.start(checkpoint_at(5))
    assert writer.take_saved() == []
    assert checkpoint_names(folder) == []
    folder.may_write.set()
    writer.start(checkpoint_at(10))
    assert "checkpoint-00000-00000005.npz" in checkpoint_names(folder)
    writer.wait()
    saved = writer.take_saved()
    assert [each.position.step for each in saved] == [5, 10]
    assert [Path(each.path).name for each in saved] == checkpoint_names(folder)[::-1]
    assert writer.take_saved() == []


def test_failed_save_is_raised_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    writer = CheckpointWriter(LocalFolder(str(tmp_path / "file")), keep=2)
    writer.start(checkpoint_at(5))
    with pytest.raises(OSError, match="file"):
        writer.wait()
    writer.wait()
    assert writer.take_saved() == []


@pytest.mark.slow
def test_delayed_checkpoints_hold_the_values_of_their_own_steps(
    digit_shards: Path, tmp_path: Path
) -> None:
    files: list[dict[str, Any]] = []
    for delay in ("at_once", "delayed"):
        done = subprocess.run(
            [sys.executable, "-c", DELAYED, digit_shards, tmp_path / delay, delay],
            capture_output=True, text=True, check=False, timeout=200,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-4000:]
        assert done.stdout.splitlines()[-1] == "[5, 10, 15, 20, 25]"
        found = (tmp_path / delay / "checkpoints").glob("*.npz")
        files.append({path.name: path.read_bytes() for path in found})
    assert files[0] == files[1]
    assert len(files[0]) == 5
