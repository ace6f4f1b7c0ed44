"""The run directory as a member of a joined job holds it.

The chief holds the run directory as any launch does, with its lock or lease. Another member
holds a lock of its own and writes only its own files: its log, its events, its result.
"""

import contextlib
import fcntl
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tenfold.data.errors import JobError, UserError
from tenfold.data.storage.folder import is_url
from tenfold.data.storage.local_folder import open_appending
from tenfold.data.storage.mirror import Mirror, make_empty_folder, work_folder
from tenfold.data.storage.open_folder import open_folder
from tenfold.launcher.job.job_spec import ClusterSpec, JobSpec
from tenfold.launcher.job.remote_run_dir import open_run_dir
from tenfold.launcher.job.run_dir import (
    HISTORY_FILE,
    LOGS_FOLDER,
    MEMBERS_FOLDER,
    RunDir,
    absolute_run_dir,
    member_history_file,
    refuse_links,
    refuse_other_files,
    worker_log_name,
)

_CHIEF: Final = 0


class MemberDir:
    """A run directory in use by the member of worker `index`, until `close`.

    Attributes:
      where: the run directory's path or URL.
      path: the local folder into which the member writes its log and its events.
    """

    def __init__(
        self, where: str, index: int, *, note: Callable[[str], None], epochs: int | None = None
    ) -> None:
        """Take the run directory.

        Args:
          where: a path or a URL.
          index: the worker's index.
          note: called with a sentence when this waits for another launch.
          epochs: see `check_usable`.

        Raises:
          UserError: it cannot be made or written, holds other files or, for the chief, a job
            that has succeeded; or another process is this worker of this run directory.
        """
        self.where = absolute_run_dir(where)
        self._index = index
        self._run_dir: RunDir | None = None
        self._mirror: Mirror | None = None
        try:
            if index == _CHIEF:
                self._run_dir = open_run_dir(self.where, note=note, epochs=epochs)
                self.path = self._run_dir.path
            else:
                self._take()
            (self.path / MEMBERS_FOLDER).mkdir(parents=True, exist_ok=True)
            self.history.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = error.strerror or str(error)
            raise UserError(f"run_dir '{where}': {reason}; give another --run_dir") from error

    def _take(self) -> None:
        # Whether the job has succeeded is for the chief to say: it may have ended already where
        # its program is short and this member comes late.
        refuse_other_files(open_folder(self.where))
        if is_url(self.where):
            locks = work_folder(self.where) / MEMBERS_FOLDER
            locks.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock(locks)
            self.path = make_empty_folder(locks / f"worker-{self._index}")
            log = f"{LOGS_FOLDER}/{worker_log_name(self._index)}"
            patterns = (log, member_history_file(self._index))
            self._mirror = Mirror(self.path, open_folder(self.where), patterns=patterns)
            self._mirror.fetch(*patterns)
            self._mirror.start()
        else:
            self.path = Path(self.where)
            self.path.mkdir(parents=True, exist_ok=True)
            refuse_links(self.path)
            self.path.joinpath(MEMBERS_FOLDER).mkdir(exist_ok=True)
            self._lock(self.path / MEMBERS_FOLDER)

    def _lock(self, folder: Path) -> None:
        self._locked = open_appending(folder / f"lock-{self._index}")
        try:
            fcntl.flock(self._locked, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._locked.close()
            raise UserError(
                f"run_dir '{self.where}': another process runs worker {self._index} of it: give "
                "another --run_dir, or each process its own place"
            ) from None

    @property
    def run_dir(self) -> RunDir | None:
        """The run directory as the chief holds it; None for another member."""
        return self._run_dir

    @property
    def history(self) -> Path:
        """The file for this member's events."""
        is_chief = self._index == _CHIEF
        return self.path / (HISTORY_FILE if is_chief else member_history_file(self._index))

    def write_job(self, spec: JobSpec, cluster: ClusterSpec) -> None:
        """Write job.json, as the chief alone does."""
        if self._run_dir is not None:
            self._run_dir.write_job(spec, cluster)

    def close(self) -> None:
        """Upload what is left, and release the run directory."""
        if self._run_dir is not None:
            self._run_dir.close()
            return
        if self._mirror is not None:
            with contextlib.suppress(OSError, JobError, UserError):
                self._mirror.close()
                shutil.rmtree(self.path, ignore_errors=True)
        self._locked.close()
