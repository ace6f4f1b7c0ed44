"""Checks before anything starts that are cheap: no TensorFlow, no waiting for hosts."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from tenfold.data.errors import UserError
from tenfold.data.planning.lanes import assign_lanes
from tenfold.data.planning.validation_split import validation_split
from tenfold.data.storage.folder import is_url
from tenfold.data.storage.read_manifest import read_manifest
from tenfold.models.train_config import TrainConfig


def check_training(config: TrainConfig, *, num_workers: int) -> int:
    """Check a training run against the manifest of its shards; return the number of lanes.

    Raises:
      UserError: there are no such shards, the workers cannot share the lanes evenly, the lanes
        do not divide the batch, or there are too few records.
    """
    manifest = read_manifest(config.shards)
    assign_lanes(
        manifest,
        config.train_split,
        num_workers=num_workers,
        global_batch_size=config.global_batch_size,
    )
    where = config.validation_shards
    other = read_manifest(where) if where else None
    split = validation_split(manifest, config.validation_split, other=other, where=where)
    if other is not None and split is not None:
        assign_lanes(
            other,
            split.name,
            num_workers=num_workers,
            global_batch_size=config.global_batch_size,
            drop_remainder=False,
        )
    return manifest.num_lanes


def check_reach(backend: str, shards: str) -> None:
    """Check that workers on the hosts of `backend` can reach the storage of `shards`.

    Raises:
      UserError: the shards are remote, and the network of simulated hosts has no way out.
    """
    if backend == "netns" and is_url(shards):
        raise UserError(
            f"'{shards}' is out of reach of simulated hosts, whose network has no way out: copy "
            "the shards to this machine, or launch with --backend=local"
        )


def check_program(program: Sequence[str], *, cwd: str) -> None:
    """Check that a user's program exists.

    Raises:
      UserError: its first word is not a program, or its Python file does not exist.
    """
    name = program[0]
    found = shutil.which(name) or shutil.which(str(Path(cwd, name)))
    if found is None:
        hint = f": write '-- python {name} …'" if name.endswith(".py") else ""
        raise UserError(f"there is no program '{name}' that can be run{hint}")
    script = next((word for word in program[1:] if not word.startswith("-")), "")
    is_python = Path(name).name.startswith("python")
    if is_python and script.endswith(".py") and not Path(cwd, script).is_file():
        raise UserError(f"there is no file '{script}' in {cwd}")
