"""The hosts that a job may run on: which are listed now, and which of them answer."""

import os
import subprocess
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

from tenfold.data.errors import UserError
from tenfold.launcher.backends.base import Backend, Host, ListedHosts
from tenfold.launcher.supervisor.hosts.host_selection import Slot, slots_of

ANSWER_TIMEOUT_S: Final = 10.0
_POLL_S: Final = 0.05


@dataclass(frozen=True)
class Look:
    """One look at the hosts.

    Attributes:
      listed: the slots that the job may use, in the order of the list of hosts.
      up: those of them on which a worker can start.
      problem: why the list could not be read again, "" if it was; `listed` is then the last one.
    """

    listed: tuple[Slot, ...]
    up: tuple[Slot, ...]
    problem: str = ""


class HostPool:
    """The hosts of a job, used by one thread at a time.

    A list of hosts may change while the job runs. Slots that were listed at the launch, but are
    neither a worker's nor a spare, stay unused; slots that are added later may be used.
    """

    def __init__(self, backend: Backend, hosts: Sequence[Host]) -> None:
        """Prepare to look.

        Args:
          backend: the back end, opened.
          hosts: the hosts of all workers, then the spare ones.
        """
        self._backend = backend
        self.first = self._listed = slots_of(hosts)
        self._left_out: frozenset[Slot] = frozenset()
        listed, _ = self._read()
        self._left_out = frozenset(listed) - frozenset(self.first)

    def look(
        self,
        *,
        lost: Collection[Slot] = (),
        running: Collection[Slot] = (),
        at_most: int = 0,
        stopped: Callable[[], bool] = lambda: False,
    ) -> Look:
        """Read the list of hosts again, and ask the hosts whether a program can run on them.

        Args:
          lost: slots that fault injection keeps away.
          running: slots that run a worker now, so that they need not be asked.
          at_most: if no more slots than this are left, take them all without asking: a host that
            does not answer fails the attempt anyway.
          stopped: whether to give up; hosts that have not answered are then not up.
        """
        self._listed, problem = self._read()
        left = [slot for slot in self._listed if slot not in lost]
        asked = [] if len(left) <= at_most else [s.host for s in left if s not in running]
        answers = hosts_that_answer(self._backend, asked, stopped=stopped)
        up = tuple(s for s in left if s in running or answers.get(s.host, True))
        return Look(self._listed, up, problem)

    def _read(self) -> tuple[tuple[Slot, ...], str]:
        if not isinstance(self._backend, ListedHosts):
            return self._listed, ""
        try:
            slots = slots_of(self._backend.list_hosts())
        except (UserError, OSError) as error:
            return self._listed, str(error)
        return tuple(slot for slot in slots if slot not in self._left_out), ""


def hosts_that_answer(
    backend: Backend, hosts: Sequence[Host], *, stopped: Callable[[], bool] = lambda: False
) -> dict[Host, bool]:
    """Return for each host whether a program can run on it now; asks all at once."""
    distinct = tuple(dict.fromkeys(hosts))
    if not distinct:
        return {}
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(len(distinct)) as pool:
        answers = pool.map(lambda host: _answers(backend, host, stopped), distinct)
        return dict(zip(distinct, answers, strict=True))


def _answers(backend: Backend, host: Host, stopped: Callable[[], bool]) -> bool:
    command = backend.command(host, (host.python, "-I", "-S", "-c", ""), {})
    try:
        process = subprocess.Popen(
            command.argv,
            env={**os.environ, **command.env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except OSError:
        return False
    until = time.monotonic() + ANSWER_TIMEOUT_S
    while process.poll() is None and time.monotonic() < until and not stopped():
        time.sleep(_POLL_S)
    if process.poll() is None:
        process.kill()
        process.wait()
        return False
    return process.returncode == 0
