"""A run directory on remote storage: the launcher's files grow here and are sent there.

Nobody can lock an object store's folder. A lease stands in its place: an object that says who
works there and is renewed every few seconds; one that has not been renewed for a minute is
void. It counts by the clocks of the machines, so those must agree within half of that.
"""

import contextlib
import json
import os
import shutil
import socket
import threading
import time
from pathlib import Path
from typing import Any, Final

from tenfold.data.errors import JobError, UserError
from tenfold.data.mirror import CHIEF_FOLDER, Mirror, empty_folder, work_folder
from tenfold.data.storage import Conflict, Folder, is_url, open_folder
from tenfold.launcher.history import HISTORY_FILE
from tenfold.launcher.inventory import ENVIRONMENT_FILE
from tenfold.launcher.job import JOB_FILE, RESULT_FILE, ClusterSpec, JobResult, JobSpec
from tenfold.launcher.rundir import LEASE_FILE, RunDir, is_locked

RENEW_S: Final = 10.0
LEASE_S: Final = 60.0
_LOGS: Final = "logs/*.log"


def open_run_dir(where: str) -> RunDir:
    """Returns the run directory at `where`, held by this process.

    Raises:
      UserError: as `RunDir`; or the storage cannot be written to.
    """
    return RemoteRunDir(where) if is_url(where) else RunDir(where)


def is_held(where: str) -> bool:
    """Says whether a launch is at work in the run directory `where`."""
    return read_lease(open_folder(where)) is not None if is_url(where) else is_locked(where)


def disk_of(where: str) -> str:
    """Returns the local folder that a job with the run directory `where` writes to."""
    return str(work_folder(where)) if is_url(where) else where


class RemoteRunDir(RunDir):
    """A run directory on remote storage, and the local folder from which it is filled."""

    def __init__(self, where: str) -> None:
        """Takes the run directory, and gets the files of it that are added to.

        Raises:
          UserError: as `RunDir`; or the storage cannot be written to.
        """
        work = work_folder(where)
        super().__init__(where, work)
        self._chief = work / CHIEF_FOLDER
        shutil.rmtree(self._chief, ignore_errors=True)
        self._whole = False
        try:
            self._remote = open_folder(self.where)
            self._lease = Lease(self._remote, work)
            self.path = empty_folder(work / "launch")
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
        except (OSError, JobError) as error:
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
        """Ends the lease; the local folder goes when all of it has been sent."""
        with contextlib.suppress(OSError, JobError):
            self._mirror.close()
        self._lease.close()
        if self._whole:
            shutil.rmtree(self.path, ignore_errors=True)
        super().close()


class Lease:
    """The right to work in a remote run directory, renewed in the background until `close`."""

    def __init__(self, remote: Folder, work: Path) -> None:
        """Takes the lease. The caller holds the lock of `work`, this machine's folder for the
        run: the lease of an earlier launch from there is void.

        Raises:
          UserError: another launch holds it.
        """
        self._remote = remote
        self._own = {"machine": _machine(work), "pid": os.getpid()}
        before = remote.entries().get(LEASE_FILE)
        other = read_lease(remote) if before else None
        if other and other.get("machine") != self._own["machine"]:
            raise _in_use(remote.path, other)
        try:
            self._renew(replaces=before.version if before else "")
        except Conflict:
            raise _in_use(remote.path, read_lease(remote) or {}) from None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._thread.start()

    def _renew(self, *, replaces: str | None = None) -> None:
        lease = {**self._own, "time": time.time()}
        self._remote.write(LEASE_FILE, json.dumps(lease).encode(), replaces=replaces)

    def _keep(self) -> None:
        while not self._ended.wait(RENEW_S):
            with contextlib.suppress(OSError, JobError):
                self._renew()

    def close(self) -> None:
        """Gives the lease back."""
        self._ended.set()
        self._thread.join()
        with contextlib.suppress(OSError, JobError):
            self._remote.remove(LEASE_FILE)


def read_lease(remote: Folder) -> dict[str, Any] | None:
    """Returns the lease of a remote run directory: machine, pid, launch, time; None where
    nobody holds it.
    """
    try:
        lease = json.loads(remote.read(LEASE_FILE) or b"{}")
        return dict(lease) if time.time() - float(lease["time"]) < LEASE_S else None
    except (ValueError, KeyError, TypeError):
        return None


def _in_use(where: str, lease: dict[str, Any]) -> UserError:
    machine, pid = str(lease.get("machine", "")).partition(" ")[0], lease.get("pid")
    return UserError(
        f"run_dir '{where}' is in use by another launch (process {pid} on {machine}): give "
        f"another --run_dir, or wait {LEASE_S:.0f} s if that one is dead"
    )


def _machine(work: Path) -> str:
    """Returns what tells a folder of this machine, and its present run, from others."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = file.read().strip()
    except OSError:
        boot = ""
    return f"{socket.gethostname()} {boot} {work}"
