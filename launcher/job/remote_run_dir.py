"""A run directory on remote storage: the launcher's files grow here and are sent there."""

import contextlib
import shutil
from collections.abc import Callable
from typing import Final

from tenfold.data.errors import JobError, UserError
from tenfold.data.storage.folder import is_url
from tenfold.data.storage.mirror import CHIEF_FOLDER, Mirror, make_empty_folder, work_folder
from tenfold.data.storage.open_folder import open_folder
from tenfold.launcher.job.environment_file import ENVIRONMENT_FILE
from tenfold.launcher.job.job_result import RESULT_FILE, JobResult
from tenfold.launcher.job.job_spec import JOB_FILE, ClusterSpec, JobSpec
from tenfold.launcher.job.lease import Lease, is_leased
from tenfold.launcher.job.run_dir import HISTORY_FILE, RunDir, is_locked

_LOGS: Final = "logs/*.log"


def open_run_dir(where: str, *, note: Callable[[str], None]) -> RunDir:
    """Returns the run directory at `where`, held by this process; `note` is told of waiting.

    Raises:
      UserError: as `RunDir`; or the storage cannot be written to.
    """
    return RemoteRunDir(where, note=note) if is_url(where) else RunDir(where)


def is_held(where: str) -> bool:
    """Says whether a launch is at work in the run directory `where`."""
    return is_leased(open_folder(where)) if is_url(where) else is_locked(where)


def disk_of(where: str) -> str:
    """Returns the local folder that a job with the run directory `where` writes to."""
    return str(work_folder(where)) if is_url(where) else where


class RemoteRunDir(RunDir):
    """A run directory on remote storage, and the local folder from which it is filled."""

    def __init__(self, where: str, *, note: Callable[[str], None]) -> None:
        """Takes the run directory, and gets the files of it that are added to.

        Raises:
          UserError: as `RunDir`; or the storage cannot be written to.
        """
        work = work_folder(where)
        super().__init__(where, work)
        self._chief = work / CHIEF_FOLDER
        shutil.rmtree(self._chief, ignore_errors=True)
        self._whole = self._is_away = False
        try:
            self._remote = open_folder(self.where)
            self._lease = Lease(self._remote, work, note=note)
            self.path = make_empty_folder(work / "launch")
            patterns = (JOB_FILE, ENVIRONMENT_FILE, HISTORY_FILE, _LOGS)
            self._mirror = Mirror(self.path, self._remote, patterns=patterns)
            self._mirror.fetch(HISTORY_FILE, _LOGS)
        except OSError as error:
            raise UserError(f"run_dir '{where}' cannot be written to: {error}") from error
        self._mirror.start()

    def write_job(self, spec: JobSpec, cluster: ClusterSpec) -> None:
        """Writes job.json, which is there when this returns; an old result goes first."""
        self._remote.remove(RESULT_FILE)
        super().write_job(spec, cluster)
        self._mirror.flush()

    def write_result(self, result: JobResult) -> None:
        """Sends all that there is, and result.json last.

        Raises:
          JobError: the storage does not take it; it lies in `path` then.
        """
        super().write_result(result)
        try:
            self._mirror.close()
            self._remote.write(RESULT_FILE, result.to_json().encode())
        except (OSError, JobError, UserError) as error:
            self._is_away = True
            raise JobError(
                f"the job has {result.state}, but its result could not be sent to "
                f"{self.where}: {error}; logs and result lie in {self.path}"
            ) from error
        self._whole = True

    def read(self, name: str) -> bytes:
        """Returns what a file holds now; of a chief on this machine, what is not sent yet too."""
        here = self._chief / name
        return here.read_bytes() if here.exists() else super().read(name)

    def close(self) -> None:
        """Ends the lease; the local folder goes when all of it has been sent.

        Storage that has just been given up is not tried again: each try may take minutes.
        """
        if not self._is_away:
            with contextlib.suppress(OSError, JobError, UserError):
                self._mirror.close()
            self._lease.close()
        if self._whole:
            shutil.rmtree(self.path, ignore_errors=True)
        super().close()
