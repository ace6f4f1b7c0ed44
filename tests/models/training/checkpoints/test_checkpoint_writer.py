"""Checkpoints that are written while the training goes on."""

import os
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tenfold.data.format.tfrecord import crc32c
from tenfold.data.reading.read_options import Position
from tenfold.data.storage.folder import Entry
from tenfold.data.storage.local_folder import LocalFolder
from tenfold.models.training.checkpoints.checkpoint import (
    Checkpoint,
    RunState,
    checkpoint_names,
    newest_checkpoint,
    save_checkpoint,
)
from tenfold.models.training.checkpoints.checkpoint_writer import CheckpointWriter
from tenfold.models.training.checkpoints.memory_copy import MemoryCopy

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

    def publish(self, local: Path, name: str, **options: Any) -> None:
        assert self.may_write.wait(60)
        super().publish(local, name, **options)


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


class StorageFolder(LocalFolder):
    """A folder on storage that keeps a CRC32C of each file."""

    def entry(self, name: str) -> Entry | None:
        data = self.read(name)
        return None if data is None else Entry(len(data), crc32c(data))


def test_copy_in_memory_is_that_of_the_newest_checkpoint(tmp_path: Path) -> None:
    folder = StorageFolder(str(tmp_path / "storage"))
    chief_copy, other_copy = (MemoryCopy("gs://b/run", disk=tmp_path / n) for n in ("one", "two"))
    chief = CheckpointWriter(folder, keep=2, copy=chief_copy)
    other = CheckpointWriter(None, keep=2, copy=other_copy)
    for step in (5, 10):
        for writer in (chief, other):
            writer.start(checkpoint_at(step))
            writer.wait()
    assert other.take_saved() == []
    newest, older = checkpoint_names(folder)
    for copy in (chief_copy, other_copy):
        assert copy.read(folder, newest) == folder.read(newest)
        assert copy.read(folder, older) is None
        assert MemoryCopy("gs://b/other", disk=tmp_path / "one").read(folder, newest) is None
    found = newest_checkpoint(folder, copy=lambda name: other_copy.read(folder, name))
    assert found is not None
    assert found.state.position.step == 10
    # Another run in the same place has written other values.
    save_checkpoint(folder, replace(checkpoint_at(10), values=(np.zeros(10),)), keep=2)
    assert other_copy.read(folder, newest) is None
    chief_copy.remove()
    assert list((tmp_path / "one").glob("*/*")) == []


def test_copy_in_memory_is_bounded_and_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = MemoryCopy("gs://b/run", disk=tmp_path)
    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage)
        copy.write("small", b"x" * 25)
        copy.write("large", b"x" * 26)
    (folder,) = tmp_path.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert list(folder.iterdir()) == [], "the copy before is removed even if there is no room"
    copy.write("small", b"x")
    old = folder / "of-another-run"
    old.touch()
    os.utime(old, (0, 0))
    folder.chmod(0o777)
    copy.write("refused", b"x")
    assert old.exists()
    folder.chmod(0o700)
    copy.write("next", b"x")
    (left,) = folder.iterdir()
    assert left.name.endswith("-next")


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
