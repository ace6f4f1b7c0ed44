"""Checkpoints: one file each, whole or not there, with the exact position of the run.

A checkpoint is an uncompressed ``.npz`` (zip with a CRC per array, read without pickle): the
variables in order, their paths to check against, and the position. It is written beside its
name, synced and renamed, so that a kill at any moment leaves the checkpoints before it.
"""

import contextlib
import io
import json
import re
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np

from tenfold.data.errors import UserError
from tenfold.data.reading.order import Position
from tenfold.data.storage.folder import TEMPORARY_SUFFIX, Folder
from tenfold.models.train_config import TrainConfig

_NAME = re.compile(r"checkpoint-([0-9]{5,})-([0-9]{8,})\.npz")
FOLDER: Final = "checkpoints"


@dataclass(frozen=True)
class RunState:
    """Where a run stands besides its variables.

    `loss_sum`, `records` and `fingerprint` are what the steps of the current epoch have summed
    up so far, over all workers. `seed` and `global_batch_size` say to which run it belongs.
    """

    position: Position
    seed: int
    global_batch_size: int
    loss_sum: float = 0.0
    records: int = 0
    fingerprint: int = 0


@dataclass(frozen=True)
class Checkpoint:
    """A run's state and the values of its variables, in the order in which they were saved."""

    state: RunState
    values: tuple[Any, ...]
    paths: tuple[str, ...] = field(default=())


def checkpoint_name(position: Position) -> str:
    """Returns ``checkpoint-00003-00000120.npz``: its epoch and the steps done of it."""
    return f"checkpoint-{position.epoch:05d}-{position.step:08d}.npz"


def save_checkpoint(folder: Folder, checkpoint: Checkpoint, *, keep: int) -> str:
    """Writes a checkpoint into `folder`, where nobody else writes; returns its path.

    Removes all but the newest `keep`, and what killed saves have begun.
    """
    buffer = io.BytesIO()
    header = json.dumps({"state": asdict(checkpoint.state), "paths": list(checkpoint.paths)})
    arrays: dict[str, Any] = {"header": np.frombuffer(header.encode(), np.uint8)}
    arrays |= {f"v{at:05d}": np.asarray(value) for at, value in enumerate(checkpoint.values)}
    np.savez(buffer, **arrays)
    name = checkpoint_name(checkpoint.state.position)
    folder.write(name, buffer.getvalue())
    names = list(folder.sizes())
    left_by_kills = [name for name in names if name.endswith(TEMPORARY_SUFFIX)]
    for old in [*_newest_first(names)[keep:], *left_by_kills]:
        folder.remove(old)
    return f"{folder.path}/{name}"


def checkpoint_names(folder: Folder) -> list[str]:
    """Returns the names of the checkpoints in `folder`, newest position first."""
    return _newest_first(folder.sizes())


def _newest_first(names: Iterable[str]) -> list[str]:
    return sorted(filter(_NAME.fullmatch, names), key=_position_key, reverse=True)


def _position_key(name: str) -> tuple[int, ...]:
    match = _NAME.fullmatch(name)
    assert match is not None
    return tuple(int(number) for number in match.groups())


def newest_checkpoint(folder: Folder) -> Checkpoint | None:
    """Returns the newest checkpoint of `folder` that is whole, or None where there is none."""
    for name in checkpoint_names(folder):
        with contextlib.suppress(zipfile.BadZipFile, ValueError, KeyError, EOFError):
            return checkpoint_from_bytes(folder.read(name) or b"")
        # Damaged on the disk: the one before it may be whole.
    return None


def checkpoint_from_bytes(data: bytes) -> Checkpoint:
    """Returns the checkpoint that a file holds.

    Raises:
      zipfile.BadZipFile, ValueError, KeyError, EOFError: the file is damaged.
    """
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        header = json.loads(arrays["header"].tobytes())
        count = len(arrays.files) - 1
        values = tuple(arrays[f"v{at:05d}"] for at in range(count))
    state = header["state"]
    return Checkpoint(
        RunState(**{**state, "position": Position(**state["position"])}),
        values,
        tuple(header["paths"]),
    )


def check_fits(checkpoint: Checkpoint, paths: Sequence[str], shapes: Sequence[Any]) -> None:
    """Checks that a checkpoint's variables are those of the model that is to take them.

    Raises:
      UserError: the first variable that differs.
    """
    if len(checkpoint.values) != len(paths):
        raise UserError(
            f"the checkpoint has {len(checkpoint.values)} variables, the model {len(paths)}: "
            "it belongs to another model; take a new --run_dir"
        )
    for path, shape, value in zip(paths, shapes, checkpoint.values, strict=True):
        if tuple(shape) != value.shape:
            raise UserError(
                f"variable '{path}' has shape {tuple(shape)}, the checkpoint's has "
                f"{value.shape}: it belongs to another model; take a new --run_dir"
            )


def check_same_run(state: RunState, config: TrainConfig) -> None:
    """Checks that a checkpoint was made by a run with the same order of records.

    Raises:
      UserError: its seed or global batch size differs.
    """
    for name in ("seed", "global_batch_size"):
        if getattr(state, name) != getattr(config, name):
            raise UserError(
                f"the checkpoint was made with {name} {getattr(state, name)}, this run has "
                f"{getattr(config, name)}: give --{name}={getattr(state, name)} or a new --run_dir"
            )
