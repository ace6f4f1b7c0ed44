"""The run directory: its file names, its lock, and how its files are replaced whole."""

import atexit
import contextlib
import fcntl
import itertools
import json
import os
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import IO, Final

from tenfold.data.errors import UserError, naming_file
from tenfold.data.storage.folder import Folder, is_url
from tenfold.data.storage.local_folder import (
    LocalFolder,
    create_exclusively,
    open_appending,
    replace_file,
)
from tenfold.data.storage.open_folder import open_folder
from tenfold.launcher.job.job_result import JobResult
from tenfold.launcher.job.job_spec import ClusterSpec, JobSpec, job_to_json
from tenfold.models import output_files

# Every file and folder of a run directory. Those of the trainer are defined in models, which may
# not import this package.
JOB_FILE: Final = "job.json"
RESULT_FILE: Final = "result.json"
HISTORY_FILE: Final = "history.jsonl"
ENVIRONMENT_FILE: Final = "environment.json"
PROMETHEUS_FILE: Final = "metrics.prom"
REPORT_FILE: Final = "report.html"
LOCK_FILE: Final = "lock"
RESERVE_FILE: Final = ".reserve"  # room for result.json on a full disk; removed at the end
LEASE_FILE: Final = "lease.json"  # replaces the lock on remote storage
LOGS_FOLDER: Final = "logs"
SUBMISSION_FILE: Final = "submission.json"  # how a platform knows the job, see SubmittedJob
CANCEL_FILE: Final = "cancel.json"  # asks the launcher to stop
MEMBERS_FOLDER: Final = "members"  # of a joined job, see job/members
SALVAGE_FOLDER: Final = "salvage"  # readable records of damaged shards
SPOILED_SHARDS_FOLDER: Final = "spoiled-shards"  # of --inject=bad_shard
EVALUATIONS_FILE: Final = "evaluations.jsonl"  # of `evaluate --follow`, a line per checkpoint
METRICS_FILE: Final = output_files.METRICS_FILE
MODEL_FILE: Final = output_files.MODEL_FILE
BEST_MODEL_FILE: Final = output_files.BEST_MODEL_FILE
CHECKPOINTS_FOLDER: Final = output_files.CHECKPOINTS_FOLDER
TENSORBOARD_FOLDER: Final = output_files.TENSORBOARD_FOLDER

_OWN_NAMES: Final = (
    JOB_FILE, RESULT_FILE, HISTORY_FILE, ENVIRONMENT_FILE, LOCK_FILE, LOGS_FOLDER, SALVAGE_FOLDER,
    SPOILED_SHARDS_FOLDER, METRICS_FILE, MODEL_FILE, BEST_MODEL_FILE, CHECKPOINTS_FOLDER,
    TENSORBOARD_FOLDER, MEMBERS_FOLDER, SUBMISSION_FILE, CANCEL_FILE, EVALUATIONS_FILE,
    PROMETHEUS_FILE,
)  # fmt: skip

_OF_A_JOB: Final = frozenset(
    {JOB_FILE, RESULT_FILE, LOCK_FILE, LEASE_FILE, LOGS_FOLDER, MEMBERS_FOLDER, SUBMISSION_FILE}
)
_RESERVE_BYTES: Final = 1 << 16

# Attempts to take the lock, and the pause between them: `is_locked` holds it for a moment.
_LOCK_TRIES: Final = 5
_LOCK_PAUSE_S: Final = 0.05


def worker_log_name(worker: int | str) -> str:
    """Return the name of a worker's log in LOGS_FOLDER; ``*`` gives the pattern of all logs."""
    return f"worker-{worker}.log"


def member_history_file(worker: int | str) -> str:
    """Return the file with a member's events in a joined job; HISTORY_FILE holds the chief's."""
    return f"{MEMBERS_FOLDER}/history-{worker}.jsonl"


def default_run_dir(name: str, *, parent: Path = Path("runs")) -> Path:
    """Make a new folder and return its path: ``runs/20261122-101502-cnn``.

    The folder is made at once, so that launches of the same second do not share it, and is removed
    when this process ends if nothing was put into it.
    """
    stem = time.strftime("%Y%m%d-%H%M%S-") + (re.sub(r"[^\w.-]+", "-", name).strip("-.") or "job")
    for number in itertools.count(1):
        path = parent / (stem if number == 1 else f"{stem}-{number}")
        with contextlib.suppress(FileExistsError):
            path.mkdir(parents=True)
            atexit.register(_remove_if_empty, path.absolute(), os.getpid())
            return path
    raise AssertionError("numbers do not end")


def _remove_if_empty(path: Path, process: int) -> None:
    """Remove a folder, and the folder around it, if nothing is in it.

    Args:
      path: the folder.
      process: the process that made it; its forks leave it alone.
    """
    if os.getpid() != process:
        return
    with contextlib.suppress(OSError):
        path.rmdir()
        path.parent.rmdir()


def absolute_run_dir(where: str) -> str:
    """Return a run directory as workers get it: an absolute path, or a URL unchanged."""
    local = where.removeprefix("file://")
    return local.rstrip("/") if is_url(local) else os.path.abspath(os.path.expanduser(local))


class RunDir:
    """A run directory that this process holds by a lock.

    Attributes:
      where: its path or URL.
      path: the local folder into which this process writes its files. Here both are the same;
        `launcher.job.remote_run_dir` has the other case.
    """

    def __init__(
        self, where: str | Path, work: Path | None = None, *, epochs: int | None = None
    ) -> None:
        """Make the folder, or take over one whose job can continue, and lock it.

        Args:
          where: the run directory, a path or a URL.
          work: the local folder to lock, where it is not the run directory itself.
          epochs: see `check_usable`.

        Raises:
          UserError: it cannot be made or written, holds other files, a finished job or
            symbolic links, or another launch is using it.
        """
        self.where = absolute_run_dir(str(where))
        self.path = work or Path(self.where)
        try:
            check_usable(self.where, epochs=epochs)
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700 if work else 0o777)
            refuse_links(self.path)
            self._lock = self._take_lock()
            self._reserve = self.path / RESERVE_FILE
            self._reserve.unlink(missing_ok=True)
            with open(self._reserve, "wb", opener=create_exclusively) as file:
                file.write(bytes(_RESERVE_BYTES))
        except OSError as error:
            reason = error.strerror or str(error)
            raise UserError(f"run_dir '{where}': {reason}; give another --run_dir") from error

    def _take_lock(self) -> IO[str]:
        lock = open_appending(self.path / LOCK_FILE)
        for _ in range(_LOCK_TRIES):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return lock
            except BlockingIOError:  # perhaps `is_locked` in another process
                time.sleep(_LOCK_PAUSE_S)
        lock.close()
        raise UserError(
            f"run_dir '{self.where}' is in use by another launch: give another --run_dir"
        )

    def write_job(self, spec: JobSpec, cluster: ClusterSpec) -> None:
        """Write job.json, after removing an old result."""
        (self.path / RESULT_FILE).unlink(missing_ok=True)
        replace_file(self.path / JOB_FILE, job_to_json(spec, cluster).encode())

    def write_result(self, result: JobResult) -> None:
        """Write result.json; on a full disk without the consequences, into the reserved room."""
        try:
            replace_file(self.path / RESULT_FILE, result.to_json().encode())
        except OSError:
            short = replace(result, consequences=()).to_json().encode()
            with naming_file(self.path / RESULT_FILE), self._reserve.open("r+b") as file:
                file.write(short)
                file.truncate()
            os.replace(self._reserve, self.path / RESULT_FILE)

    def read(self, name: str) -> bytes:
        """Return the present content of a file, empty where there is none."""
        return open_folder(self.where).read(name) or b""

    def close(self) -> None:
        """Release the run directory."""
        self._reserve.unlink(missing_ok=True)
        self._lock.close()


def refuse_links(folder: Path) -> None:
    """Refuse symbolic links under the names that a run directory's own files have.

    Others could have planted them where they may write to the run directory. The user's own link
    to a folder is accepted, as for checkpoints on a larger disk. Files are opened without
    following links later, too.

    Raises:
      UserError: there is one.
    """
    for name in _OWN_NAMES:
        path = folder / name
        if not path.is_symlink():
            continue
        owner = path.lstat().st_uid
        if not path.is_dir() or owner != os.geteuid():
            raise UserError(
                f"run_dir '{folder}' holds the symbolic link '{name}' of user {owner}, which no "
                "launch makes: remove it, or give another --run_dir"
            )


def is_locked(folder: str | Path) -> bool:
    """Whether a process of this machine holds the run directory `folder`."""
    try:
        with Path(folder, LOCK_FILE).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def check_usable(where: str, *, epochs: int | None = None) -> None:
    """Check that a job can start, or continue, in the run directory `where`.

    Args:
      where: the run directory.
      epochs: the epochs of a training; one that succeeded after fewer epochs, or within one, can
        continue. None for another program.

    Raises:
      UserError: it holds a finished job, or files that are not a job's.
    """
    folder = open_folder(where)
    done = _epochs_done(folder) if refuse_other_files(folder) else None
    if done is None or (epochs is not None and 0 <= done < epochs and _has_checkpoint(folder)):
        return
    more = f"--epochs above {done} to train on, or " if epochs is not None and done >= 0 else ""
    raise UserError(f"run_dir '{where}' holds a job that succeeded: give {more}a new --run_dir")


def _has_checkpoint(folder: Folder) -> bool:
    return bool(open_folder(f"{folder.path}/{CHECKPOINTS_FOLDER}").sizes())


def refuse_other_files(folder: Folder) -> bool:
    """Return whether a run directory holds a job; False where it is new or empty.

    Raises:
      UserError: it holds files that are not a job's.
    """
    names = _entries(folder)
    if names and not names & _OF_A_JOB:
        raise UserError(f"run_dir '{folder.path}' holds other files: give a new or empty folder")
    return bool(names)


def _entries(folder: Folder) -> set[str]:
    if isinstance(folder, LocalFolder):
        return set(os.listdir(folder.path)) if os.path.exists(folder.path) else set()
    return set(folder.sizes())


def _epochs_done(folder: Folder) -> int | None:
    """Return the whole epochs of a job that succeeded, None of one that did not.

    -1 stands for another program, which has none.
    """
    try:
        result = json.loads(folder.read(RESULT_FILE) or b"{}")
        if result["state"] != "succeeded":
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    final = result.get("final")
    epochs = final.get("epochs") if isinstance(final, dict) else None
    return epochs if type(epochs) is int else -1
