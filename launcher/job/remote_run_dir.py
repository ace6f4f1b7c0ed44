"""A run directory on remote storage: the launcher writes locally and uploads repeatedly.

The modules that upload are imported for URLs only.
"""

import contextlib
import shutil
from collections.abc import Callable
from typing import Final

from tenfold.data.errors import JobError, UserError
from tenfold.data.storage.folder import is_url
from tenfold.data.storage.open_folder import open_folder
from tenfold.launcher.job.job_result import JobResult
from tenfold.launcher.job.job_spec import ClusterSpec, JobSpec
from tenfold.launcher.job.run_dir import (
    ENVIRONMENT_FILE,
    HISTORY_FILE,
    JOB_FILE,
    LOGS_FOLDER,
    PROMETHEUS_FILE,
    RESULT_FILE,
    RunDir,
    is_locked,
    worker_log_name,
)

_LOGS: Final = f"{LOGS_FOLDER}/{worker_log_name('*')}"


def open_run_dir(where: str, *, note: Callable[[str], None], epochs: int | None = None) -> RunDir:
    """Return the run directory at `where`, held by this process.

    Args:
      where: a path or a URL.
      note: called with a sentence when this waits for another launch.
      epochs: see `check_usable`.

    Raises:
      UserError: as `RunDir`; or the storage cannot be written to.
    """
    if is_url(where):
        return RemoteRunDir(where, note=note, epochs=epochs)
    return RunDir(where, epochs=epochs)


def is_held(where: str) -> bool:
    """Whether a launch is running in the run directory `where`."""
    if not is_url(where):
        return is_locked(where)
    from tenfold.launcher.job.lease import is_leased

    return is_leased(open_folder(where))


def disk_of(where: str) -> str:
    """Return the local folder that a job with the run directory `where` writes to."""
    if not is_url(where):
        return where
    from tenfold.data.storage.mirror import work_folder

    return str(work_folder(where))


class RemoteRunDir(RunDir):
    """A run directory on remote storage, filled from a local folder by a mirror.

    The mirror uploads on a thread of its own; the caller holds the lock of the local folder and
    the lease of the remote one until `close`.
    """

    def __init__(
        self, where: str, *, note: Callable[[str], None], epochs: int | None = None
    ) -> None:
        """Take the run directory, and download the files that this process appends to.

        Raises:
          UserError: as `RunDir`; or the storage cannot be written to.
        """
        from tenfold.data.storage.mirror import (
            CHIEF_FOLDER,
            Mirror,
            make_empty_folder,
            work_folder,
        )
        from tenfold.launcher.job.lease import Lease

        work = work_folder(where)
        super().__init__(where, work, epochs=epochs)
        self._chief = work / CHIEF_FOLDER
        shutil.rmtree(self._chief, ignore_errors=True)
        self._is_uploaded = self._is_unreachable = False
        try:
            self._remote = open_folder(self.where)
            self._lease = Lease(self._remote, work, note=note)
            self.path = make_empty_folder(work / "launch")
            patterns = (JOB_FILE, ENVIRONMENT_FILE, HISTORY_FILE, PROMETHEUS_FILE, _LOGS)
            self._mirror = Mirror(self.path, self._remote, patterns=patterns)
            self._mirror.fetch(HISTORY_FILE, _LOGS)
        except OSError as error:
            raise UserError(f"run_dir '{where}' cannot be written to: {error}") from error
        self._mirror.start()

    def write_job(self, spec: JobSpec, cluster: ClusterSpec) -> None:
        """Write and upload job.json, after removing an old result."""
        self._remote.remove(RESULT_FILE)
        super().write_job(spec, cluster)
        self._mirror.flush()

    def write_result(self, result: JobResult) -> None:
        """Upload everything, result.json last.

        Raises:
          JobError: the upload failed; `path` then holds the files.
        """
        super().write_result(result)
        try:
            self._mirror.close()
            self._remote.write(RESULT_FILE, result.to_json().encode())
        except (OSError, JobError, UserError) as error:
            self._is_unreachable = True
            raise JobError(
                f"the job has {result.state}, but its result could not be uploaded to "
                f"{self.where}: {error}; logs and result are in {self.path}"
            ) from error
        self._is_uploaded = True

    def read(self, name: str) -> bytes:
        """Return the present content of a file, also before the chief has uploaded it."""
        local = self._chief / name
        return local.read_bytes() if local.exists() else super().read(name)

    def close(self) -> None:
        """Release the lease, and remove the local folder if everything was uploaded.

        If an upload has just failed this does not try again: each attempt may take minutes.
        """
        if not self._is_unreachable:
            with contextlib.suppress(OSError, JobError, UserError):
                self._mirror.close()
            self._lease.close()
        if self._is_uploaded:
            shutil.rmtree(self.path, ignore_errors=True)
        super().close()
