"""The run directory: made once, held while a job runs, its files replaced whole."""

import fcntl
import json
import os
import re
import time
from pathlib import Path
from typing import IO, Final

from tenfold.data.errors import UserError
from tenfold.data.storage.folder import Folder, is_url
from tenfold.data.storage.local_folder import LocalFolder, replace_file
from tenfold.data.storage.open_folder import open_folder
from tenfold.launcher.job.job_result import RESULT_FILE, JobResult
from tenfold.launcher.job.job_spec import JOB_FILE, ClusterSpec, JobSpec, job_to_json

HISTORY_FILE: Final = "history.jsonl"

LOCK_FILE: Final = "lock"

LEASE_FILE: Final = "lease.json"  # what stands for the lock on remote storage

# So often, and so many seconds apart, is tried to lock it.
_LOCK_TRIES: Final = 5

_LOCK_PAUSE_S: Final = 0.05


def default_run_dir(name: str, *, parent: Path = Path("runs")) -> Path:
    """Returns a folder that is not there yet: ``runs/20261122-101502-cnn``."""
    stem = time.strftime("%Y%m%d-%H%M%S-") + (re.sub(r"[^\w.-]+", "-", name).strip("-.") or "job")
    number, path = 1, parent / stem
    while path.exists():
        number += 1
        path = parent / f"{stem}-{number}"
    return path


def absolute_run_dir(where: str) -> str:
    """Returns a run directory as it is told to workers: an absolute path, or a URL as it is."""
    local = where.removeprefix("file://")
    return local.rstrip("/") if is_url(local) else os.path.abspath(os.path.expanduser(local))


class RunDir:
    """A run directory that this process holds.

    `where` is its path or URL; in the local folder `path` lie the files of it that this process
    writes. Here both are the same; `launcher.remote_run` has the other case.
    """

    def __init__(self, where: str | Path, work: Path | None = None) -> None:
        """Makes the folder, or takes over one whose job did not succeed. `work` is the folder
        of this machine to be locked, where it is not the run directory itself.

        Raises:
          UserError: it cannot be made or written, holds other things or a job that has
            succeeded, or another launch is at work in it.
        """
        self.where = absolute_run_dir(str(where))
        self.path = work or Path(self.where)
        try:
            check_usable(self.where)
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = self._take_lock()
        except OSError as error:
            reason = error.strerror or str(error)
            raise UserError(f"run_dir '{where}': {reason}; give another --run_dir") from error

    def _take_lock(self) -> IO[str]:
        lock = (self.path / LOCK_FILE).open("a")
        for _ in range(_LOCK_TRIES):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return lock
            except BlockingIOError:  # perhaps by `is_locked`, for a moment
                time.sleep(_LOCK_PAUSE_S)
        lock.close()
        raise UserError(
            f"run_dir '{self.where}' is in use by another launch: give another --run_dir"
        )

    def write_job(self, spec: JobSpec, cluster: ClusterSpec) -> None:
        """Writes job.json; an old result is taken away first."""
        (self.path / RESULT_FILE).unlink(missing_ok=True)
        replace_file(self.path / JOB_FILE, job_to_json(spec, cluster).encode())

    def write_result(self, result: JobResult) -> None:
        """Writes result.json."""
        replace_file(self.path / RESULT_FILE, result.to_json().encode())

    def read(self, name: str) -> bytes:
        """Returns what a file of the run directory holds now; nothing where there is none."""
        return open_folder(self.where).read(name) or b""

    def close(self) -> None:
        """Lets the run directory go."""
        self._lock.close()


def is_locked(folder: str | Path) -> bool:
    """Says whether a process of this machine holds the run directory `folder`."""
    try:
        with Path(folder, LOCK_FILE).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def check_usable(where: str) -> None:
    """Checks that a job can be run, or gone on with, in the run directory `where`.

    Raises:
      UserError: it holds a finished job, or things that are not a job's.
    """
    folder = open_folder(where)
    there = _entries(folder)
    if there and not there & {JOB_FILE, RESULT_FILE, LOCK_FILE, LEASE_FILE, "logs"}:
        raise UserError(f"run_dir '{where}' holds other files: give a new or empty folder")
    if there and _state(folder) == "succeeded":
        raise UserError(f"run_dir '{where}' holds a job that succeeded: give a new --run_dir")


def _entries(folder: Folder) -> set[str]:
    if isinstance(folder, LocalFolder):
        return set(os.listdir(folder.path)) if os.path.exists(folder.path) else set()
    return set(folder.sizes())


def _state(folder: Folder) -> str:
    try:
        return str(json.loads(folder.read(RESULT_FILE) or b"{}")["state"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
