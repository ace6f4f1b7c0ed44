"""Checks that the program and the shards of a job are where its workers can find them."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from tenfold.data.errors import UserError
from tenfold.data.storage.folder import is_url


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
