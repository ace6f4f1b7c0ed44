"""Checkpoints: one file each, published whole, with the exact position of the run.

A checkpoint is an uncompressed ``.npz``: a zip with a CRC per array, read without pickle.
``header`` is JSON (the run's state, the paths of the variables), ``v00000``, ``v00001``, … are the
values of the variables. The file is written under a temporary name, synced and renamed, so that a
kill at any moment leaves the earlier checkpoints intact.
"""

import contextlib
import io
import json
import re
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tenfold.data.errors import UserError
from tenfold.data.format.json_fields import from_json_fields
from tenfold.data.planning.lanes import DROP
from tenfold.data.reading.mixing.pass_counts import PassCounts
from tenfold.data.reading.read_options import Position
from tenfold.data.storage.folder import TEMPORARY_SUFFIX, Folder
from tenfold.data.storage.local_folder import LocalFolder, temporary_beside
from tenfold.models.run_rules.figures import BestFigure
from tenfold.models.train_config import STEP_FIELDS, TrainConfig, step_field_conflict

_NAME = re.compile(r"checkpoint-([0-9]{5,})-([0-9]{8,})\.npz")


@dataclass(frozen=True)
class RunState:
    """The state of a run besides its variables.

    Attributes:
      position: the epoch, and the steps done in it.
      seed: seed of the run; a checkpoint of another seed is refused.
      global_batch_size: records per step; a checkpoint of another size is refused.
      loss_sum: sum of the losses of the current epoch's steps, without those left out.
      skipped: the steps of the current epoch whose update was left out, in full batches.
      records: records read in the current epoch; over all workers in a checkpoint. In a mixture,
        those of the first data set.
      fingerprint: sum of their fingerprints modulo 2**64; over all workers in a checkpoint.
      remainder: what fixes the number of steps of an epoch, as in `ReadOptions`; a checkpoint of
        another is refused. Checkpoints of older versions have none.
      bucket: what the records are sorted by, as in `ReadOptions`; the same.
      balance: the classes that are balanced, as in `ReadOptions`; the same.
      shares: the shares of a mixture, as in `TrainConfig`; the same.
      others: what was read of the further data sets of a mixture; over all workers in a
        checkpoint.
      best: the best values of the figures that decide something, by name.
      seconds: how long the run has lasted under --max_time, without what restarts have lost.
      tuning: the values of TUNING_FIELDS; empty in checkpoints of older versions.
    """

    position: Position
    seed: int
    global_batch_size: int
    loss_sum: float = 0.0
    skipped: float = 0.0
    records: int = 0
    fingerprint: int = 0
    remainder: str = DROP
    bucket: str = ""
    balance: str = ""
    shares: str = ""
    others: tuple[PassCounts, ...] = ()
    best: Mapping[str, BestFigure] = field(default_factory=dict)
    seconds: float = 0.0
    tuning: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run and the values of its variables.

    Attributes:
      state: the state besides the variables.
      values: an array per variable, in the order of `Session`'s variables.
      paths: the Keras path of each variable; empty in tests only.
    """

    state: RunState
    values: tuple[Any, ...]
    paths: tuple[str, ...] = field(default=())


def checkpoint_name(position: Position) -> str:
    """Return ``checkpoint-00003-00000120.npz``: the epoch, and the steps done in it."""
    return f"checkpoint-{position.epoch:05d}-{position.step:08d}.npz"


def checkpoint_bytes(checkpoint: Checkpoint) -> bytes:
    """Return the file of a checkpoint; equal checkpoints give equal bytes."""
    buffer = io.BytesIO()
    _write_arrays(buffer, checkpoint)
    return buffer.getvalue()


def _write_arrays(file: BinaryIO, checkpoint: Checkpoint) -> None:
    header = json.dumps({"state": asdict(checkpoint.state), "paths": list(checkpoint.paths)})
    arrays: dict[str, Any] = {"header": np.frombuffer(header.encode(), np.uint8)}
    arrays |= {f"v{index:05d}": np.asarray(v) for index, v in enumerate(checkpoint.values)}
    np.savez(file, **arrays)


def save_checkpoint(
    folder: Folder, checkpoint: Checkpoint, *, keep: int, data: bytes | None = None
) -> str:
    """Write a checkpoint, then remove all but the newest `keep`; return its path.

    Only the chief may call this function: it also removes the temporary files of every save that
    was killed.

    Args:
      folder: the folder of the run's checkpoints.
      checkpoint: the state and variables to save.
      keep: how many checkpoints stay, this one included.
      data: `checkpoint_bytes` of it for a remote folder, where they are at hand.
    """
    name = checkpoint_name(checkpoint.state.position)
    if isinstance(folder, LocalFolder):
        _write_local(folder, name, checkpoint)
    else:
        folder.write(name, checkpoint_bytes(checkpoint) if data is None else data)
    names = list(folder.sizes())
    temporary = [name for name in names if name.endswith(TEMPORARY_SUFFIX)]
    for old in [*_newest_first(names)[keep:], *temporary]:
        folder.remove(old)
    return f"{folder.path}/{name}"


def _write_local(folder: LocalFolder, name: str, checkpoint: Checkpoint) -> None:
    """Write a checkpoint to disk array by array: all its bytes are never in memory at once."""
    path = Path(folder.path, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(path)
    try:
        with temporary.open("xb") as file:
            _write_arrays(file, checkpoint)
        folder.publish(temporary, name)
    finally:
        temporary.unlink(missing_ok=True)


def checkpoint_names(folder: Folder) -> list[str]:
    """Return the names of the checkpoints in `folder`, newest position first."""
    return _newest_first(folder.sizes())


def checkpoint_position(name: str) -> Position:
    """Return the position in the name of a checkpoint; the inverse of `checkpoint_name`."""
    return Position(*_position_key(name))


def _newest_first(names: Iterable[str]) -> list[str]:
    return sorted(filter(_NAME.fullmatch, names), key=_position_key, reverse=True)


def _position_key(name: str) -> tuple[int, ...]:
    match = _NAME.fullmatch(name)
    assert match is not None
    return tuple(int(number) for number in match.groups())


def newest_checkpoint(
    folder: Folder, *, copy: Callable[[str], bytes | None] = lambda _: None
) -> Checkpoint | None:
    """Return the newest intact checkpoint of `folder`, or None if there is none.

    Args:
      folder: the folder of the run's checkpoints.
      copy: gives the bytes of a checkpoint by its name where they are at hand.
    """
    for name in checkpoint_names(folder):
        with contextlib.suppress(zipfile.BadZipFile, ValueError, KeyError, EOFError):
            return checkpoint_from_bytes(copy(name) or folder.read(name) or b"")
        # This file is damaged; the checkpoint before it may be intact.
    return None


def checkpoint_from_bytes(data: bytes) -> Checkpoint:
    """Parse the bytes of a checkpoint file.

    Raises:
      zipfile.BadZipFile, ValueError, KeyError, EOFError: the file is damaged.
    """
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        header = json.loads(arrays["header"].tobytes())
        count = len(arrays.files) - 1
        values = tuple(arrays[f"v{index:05d}"] for index in range(count))
    state = from_json_fields(RunState, header["state"])
    return Checkpoint(state, values, tuple(header["paths"]))


def check_fits(checkpoint: Checkpoint, paths: Sequence[str], shapes: Sequence[Any]) -> None:
    """Check that a checkpoint has the variables of the model that it is restored into.

    Args:
      checkpoint: the checkpoint to restore.
      paths: the path of each of the model's variables.
      shapes: the shape of each of the model's variables.

    Raises:
      UserError: the number of variables differs, or the shape of one; the message names the
        first variable that differs.
    """
    if len(checkpoint.values) != len(paths):
        raise UserError(
            f"the checkpoint has {len(checkpoint.values)} variables, the model {len(paths)}: "
            "the checkpoint belongs to another model; give a new --run_dir"
        )
    for path, shape, value in zip(paths, shapes, checkpoint.values, strict=True):
        if tuple(shape) != value.shape:
            raise UserError(
                f"variable '{path}' has shape {tuple(shape)}, in the checkpoint "
                f"{value.shape}: the checkpoint belongs to another model; give a new --run_dir"
            )


def without_learning_rate(checkpoint: Checkpoint) -> Checkpoint:
    """Return `checkpoint` without the variable of a constant learning rate, if it has one.

    With a schedule the optimizer has no such variable, so that a run which changes the schedule
    has one variable more or less.
    """
    pairs = [
        (path, value)
        for path, value in zip(checkpoint.paths, checkpoint.values, strict=True)
        if not is_learning_rate(path)
    ]
    paths, values = zip(*pairs, strict=True) if pairs else ((), ())
    return Checkpoint(checkpoint.state, tuple(values), tuple(paths))


def is_learning_rate(path: str) -> bool:
    """Return whether the variable of a path is the constant learning rate of an optimizer."""
    return path.rpartition("/")[2] == "learning_rate"


def tuning_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the changed values of TUNING_FIELDS in words: ``epochs 5 (was 3)``."""
    return [
        f"{name} {_shown(now[name])} (was {_shown(before[name])})"
        for name in now
        if name in before and before[name] != now[name]
    ]


def _shown(value: Any) -> str:
    return "the model's own" if value is None else str(value)


def check_same_run(state: RunState, config: TrainConfig) -> None:
    """Check that a checkpoint is of a run with the same steps.

    Raises:
      UserError: one of STEP_FIELDS differs.
    """
    for name in STEP_FIELDS:
        before, now = getattr(state, name), getattr(config, name)
        if before != now:
            raise UserError(f"the checkpoint was made {step_field_conflict(name, before, now)}")
