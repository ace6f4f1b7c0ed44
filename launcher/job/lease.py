"""The lease of a remote run directory: what stands for a lock, which an object store has not.

An object there says who works, and is written anew every few seconds. Who would work there too
watches it: it is void when it has not changed for a while. No clocks are compared for that.
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
    """The right to work in a remote run directory, renewed in the background until `close`."""

    def __init__(self, remote: Folder, work: Path, *, note: Callable[[str], None]) -> None:
        """Takes the lease. Where another holds it, waits for a sign of life of that one, and
        tells `note` so. The caller holds the lock of `work`, this machine's folder for the run:
        the lease of an earlier launch from there is void at once.

        Raises:
          UserError: another launch holds it.
        """
        self._remote = remote
        self._own = {"machine": _machine(work), "pid": os.getpid()}
        try:
            self._renew(replaces=self._void_version(note))
        except Conflict:
            raise _in_use(remote) from None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._thread.start()

    def _void_version(self, note: Callable[[str], None]) -> str:
        """Returns the version of the lease that may be replaced, "" where there is none."""
        entry, text = self._remote.entries().get(LEASE_FILE), self._remote.read(LEASE_FILE)
        if entry is None or text is None:
            return ""
        if _parse(text).get("machine") != self._own["machine"]:
            note(f"{_holder(text)}: waiting up to {VOID_AFTER_S:.0f} s for it to renew its lease")
            self._wait_until_void(text)
        if not entry.version:  # the storage has none: only nothing can be replaced
            self._remote.remove(LEASE_FILE)
        return entry.version

    def _wait_until_void(self, text: bytes) -> None:
        pause_s = RENEW_S / 5
        # Counted, not timed: when both have stood still for long, the holder has a look's time.
        for _ in range(round(VOID_AFTER_S / pause_s)):
            time.sleep(pause_s)
            if self._remote.read(LEASE_FILE) != text:
                raise _in_use(self._remote)

    def _renew(self, *, replaces: str | None = None) -> None:
        lease = {**self._own, "time": time.time()}
        self._remote.write(LEASE_FILE, json.dumps(lease).encode(), replaces=replaces)

    def _keep(self) -> None:
        while not self._ended.wait(RENEW_S):
            with contextlib.suppress(OSError, JobError, UserError):
                self._renew()

    def close(self) -> None:
        """Gives the lease back."""
        self._ended.set()
        self._thread.join()
        with contextlib.suppress(OSError, JobError, UserError):
            self._remote.remove(LEASE_FILE)


def is_leased(remote: Folder) -> bool:
    """Says whether somebody seems to work in a remote run directory, by the clocks of both."""
    since = _parse(remote.read(LEASE_FILE) or b"").get("time")
    return isinstance(since, float) and time.time() - since < VOID_AFTER_S


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
    """Returns what tells a folder of this machine, and its present run, from others."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = file.read().strip()
    except OSError:
        boot = ""
    return f"{socket.gethostname()} {boot} {work}"
