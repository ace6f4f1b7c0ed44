"""The lease of a remote run directory: a lock on an object store, which has none.

The holder rewrites an object in the run directory every few seconds. Another launch watches the
object: the lease is void when it has not changed for a while. That compares no clocks of two
machines.
"""

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tenfold.data.errors import JobError, UserError
from tenfold.data.storage.folder import Conflict, Folder
from tenfold.launcher.job.run_dir import LEASE_FILE

RENEW_S: Final = 5.0
VOID_AFTER_S: Final = 30.0


class Lease:
    """The right to write to a remote run directory, until `close`.

    A daemon thread renews it every RENEW_S. The caller also holds the lock of `work`, so no other
    process of this machine takes the lease at the same time.
    """

    def __init__(self, remote: Folder, work: Path, *, note: Callable[[str], None]) -> None:
        """Take the lease; where another launch holds it, wait until that lease is void.

        Args:
          remote: the run directory.
          work: this machine's folder for the run, locked by the caller: a lease that an earlier
            launch took from there is void at once.
          note: called with a sentence before waiting.

        Raises:
          UserError: another launch renews its lease.
        """
        self._remote = remote
        self._own = {"machine": _machine(work), "pid": os.getpid()}
        try:
            self._renew(replaces=self._void_version(note))
        except Conflict:
            raise _in_use(remote) from None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew_until_closed, name="lease", daemon=True)
        self._thread.start()

    def _void_version(self, note: Callable[[str], None]) -> str:
        """Return the version of the void lease to replace, "" where there is no lease."""
        entry, text = self._remote.entries().get(LEASE_FILE), self._remote.read(LEASE_FILE)
        if entry is None or text is None:
            return ""
        if _parse(text).get("machine") != self._own["machine"]:
            note(f"{_holder(text)}: waiting up to {VOID_AFTER_S:.0f} s for it to renew its lease")
            self._wait_until_void(text)
        if not entry.version:  # storage without versions can only create, not replace
            self._remote.remove(LEASE_FILE)
        return entry.version

    def _wait_until_void(self, text: bytes) -> None:
        pause_s = RENEW_S / 5
        # Counted, not timed: after both machines were suspended, the holder still gets the time
        # of these pauses to renew.
        for _ in range(round(VOID_AFTER_S / pause_s)):
            time.sleep(pause_s)
            if self._remote.read(LEASE_FILE) != text:
                raise _in_use(self._remote)

    def _renew(self, *, replaces: str | None = None) -> None:
        lease = {**self._own, "time": time.time()}
        self._remote.write(LEASE_FILE, json.dumps(lease).encode(), replaces=replaces)

    def _renew_until_closed(self) -> None:
        while not self._ended.wait(RENEW_S):
            with contextlib.suppress(OSError, JobError, UserError):
                self._renew()

    def close(self) -> None:
        """Stop renewing and remove the lease."""
        self._ended.set()
        self._thread.join()
        with contextlib.suppress(OSError, JobError, UserError):
            self._remote.remove(LEASE_FILE)


def is_leased(remote: Folder) -> bool:
    """Whether a launch seems to use a remote run directory, by comparing both clocks."""
    renewed_at = _parse(remote.read(LEASE_FILE) or b"").get("time")
    return isinstance(renewed_at, float) and time.time() - renewed_at < VOID_AFTER_S


def _parse(text: bytes) -> dict[str, Any]:
    try:
        lease = json.loads(text)
    except ValueError:
        return {}
    return lease if isinstance(lease, dict) else {}


def _holder(text: bytes) -> str:
    lease = _parse(text)
    machine = str(lease.get("machine", "")).partition(" ")[0]
    return f"in use by another launch (process {lease.get('pid')} on {machine})"


def _in_use(remote: Folder) -> UserError:
    holder = _holder(remote.read(LEASE_FILE) or b"")
    return UserError(f"run_dir '{remote.path}' is {holder}: give another --run_dir")


def _machine(work: Path) -> str:
    """Return a text that identifies this machine, its present boot and the folder `work`."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = file.read().strip()
    except OSError:
        boot = ""
    return f"{socket.gethostname()} {boot} {work}"
