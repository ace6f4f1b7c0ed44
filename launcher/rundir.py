"""The run directory: made once, locked while a job runs, its files replaced whole."""

import fcntl
import json
import os
import re
import time
from pathlib import Path
from typing import IO, Final

from tenfold.data.errors import UserError
from tenfold.launcher.job import (
    JOB_FILE,
    RESULT_FILE,
    ClusterSpec,
    JobResult,
    JobSpec,
    job_to_json,
)

LOCK_FILE: Final = "lock"


def default_run_dir(name: str, *, parent: Path = Path("runs")) -> Path:
    """Returns a folder that is not there yet: ``runs/20261122-101502-cnn``."""
    stem = time.strftime("%Y%m%d-%H%M%S-") + (re.sub(r"[^\w.-]+", "-", name).strip("-.") or "job")
    number, path = 1, parent / stem
    while path.exists():
        number += 1
        path = parent / f"{stem}-{number}"
    return path


class RunDir:
    """A run directory that this process holds the lock of."""

    def __init__(self, path: Path) -> None:
        """Makes the folder, or takes over one whose job did not succeed.

        Raises:
          UserError: it cannot be made or written, holds other things or a job that has
            succeeded, or another launch is at work in it.
        """
        self.path = path.absolute()
        try:
            check_usable(self.path)
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = self._take_lock()
        except OSError as error:
            reason = error.strerror or str(error)
            raise UserError(f"run_dir '{path}': {reason}; give another --run_dir") from error

    def _take_lock(self) -> IO[str]:
        lock = (self.path / LOCK_FILE).open("a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise UserError(
                f"run_dir '{self.path}' is in use by another launch: give another --run_dir"
            ) from None
        return lock

    def write_job(self, spec: JobSpec, cluster: ClusterSpec) -> None:
        """Writes job.json; an old result is taken away first."""
        (self.path / RESULT_FILE).unlink(missing_ok=True)
        replace_text(self.path / JOB_FILE, job_to_json(spec, cluster))

    def write_result(self, result: JobResult) -> None:
        """Writes result.json."""
        replace_text(self.path / RESULT_FILE, result.to_json())

    def close(self) -> None:
        """Lets the lock go."""
        self._lock.close()


def check_usable(path: Path) -> None:
    """Checks that a job can be run, or gone on with, in `path`.

    Raises:
      UserError: it holds a finished job, or things that are not a job's.
    """
    if not path.exists() or not any(path.iterdir()):
        return
    known = {JOB_FILE, RESULT_FILE, LOCK_FILE, "logs"}
    if not known & {entry.name for entry in path.iterdir()}:
        raise UserError(f"run_dir '{path}' holds other files: give a new or empty folder")
    if _state(path / RESULT_FILE) == "succeeded":
        raise UserError(f"run_dir '{path}' holds a job that succeeded: give a new --run_dir")


def _state(result: Path) -> str:
    try:
        return str(json.loads(result.read_text(encoding="utf-8"))["state"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def replace_text(path: Path, text: str) -> None:
    """Writes a file so that a reader sees the old or the new text, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
