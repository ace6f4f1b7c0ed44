"""The hosts of a job from start to start: which it uses, how they change, when it may grow."""

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace

from tenfold.data.units import plural
from tenfold.launcher.backends.base import Backend, Host
from tenfold.launcher.supervisor.hosts.host_pool import HostPool
from tenfold.launcher.supervisor.hosts.host_selection import (
    Slot,
    choose_count,
    describe_change,
    describe_list_change,
    growth_allowed_in_s,
    look_interval_s,
    select_slots,
)
from tenfold.launcher.supervisor.hosts.host_watch import HostWatch


@dataclass(frozen=True)
class HostPolicy:
    """How many hosts a job may use.

    Attributes:
      counts: the permitted numbers of workers, largest first.
      regrow_after_s: the shortest time between two growths; 0: never grow.
    """

    counts: tuple[int, ...]
    regrow_after_s: float = 0.0


@dataclass(frozen=True)
class Choice:
    """The hosts for the next start, none where too few answer.

    Attributes:
      hosts: the host of each worker, by worker index.
      before: how many workers ran until now, or were to run at the first start.
      reason: why the hosts change, "" if they do not.
      notes: what else the user should know.
    """

    hosts: tuple[Host, ...]
    before: int = 0
    reason: str = ""
    notes: tuple[str, ...] = ()


@dataclass
class JobHosts:
    """The hosts of one job. The supervisor's main thread calls all methods.

    Attributes:
      backend: the back end, opened.
      hosts: the hosts of all workers of the full job, then the spare ones.
      policy: how many hosts the job may use.
      lost_workers: returns the workers, as (start, worker index), whose hosts fault injection
        keeps away from a start.
    """

    backend: Backend
    hosts: Sequence[Host]
    policy: HostPolicy
    lost_workers: Callable[[int], Iterable[tuple[int, int]]] = lambda start: ()
    _starts: list[tuple[Slot, ...]] = field(default_factory=list)
    _last_growth_at: float | None = None
    _problem: str = ""
    _left_out: set[Slot] = field(default_factory=set)
    _left_out_reason: str = ""

    def __post_init__(self) -> None:
        self._pool = HostPool(self.backend, self.hosts)
        self._listed = self._pool.first

    def choose(self) -> Choice:
        """Return the hosts for the next start, which `choose` then takes as the current ones."""
        only_count = self.policy.counts[0] if len(self.policy.counts) == 1 else 0
        look = self._pool.look(lost=self._lost(), at_most=only_count)
        current = self._current or self._pool.first[: self.policy.counts[0]]
        chosen = select_slots(look.up, current, self.policy.counts)
        told = {*chosen, *(slot for slot in current if slot not in look.up)}
        first = self._pool.first
        notes = [describe_list_change(self._listed, look.listed, first=first, told=told)]
        if look.problem != self._problem and look.problem:
            notes.append(f"{look.problem}: the list of hosts stays as it was")
        self._listed, self._problem = look.listed, look.problem
        reason = ""
        if chosen:
            change = describe_change(current, chosen, up=look.up, known=self._known)
            reason, self._left_out_reason = self._left_out_reason or change, ""
            if len(chosen) > len(current):
                self._last_growth_at = time.monotonic()
            self._starts.append(chosen)
        hosts = tuple(slot.host for slot in chosen)
        return Choice(hosts, len(current), reason, tuple(filter(None, notes)))

    def leave_out(self, worker: int) -> bool:
        """Leave a host out for good if it has failed as it joined; called after a failed start.

        A host may answer and still be unable to run a worker. The job has run without it before,
        and must not end because it tried to grow.

        Args:
          worker: the worker of the last start that failed before its first step.

        Returns:
          Whether the host has just joined, and the job can go on without it.
        """
        before = self._starts[-2] if len(self._starts) > 1 else self._current
        slot = self._current[worker]
        failed = {s for s in self._current if s.host == slot.host and s not in before}
        left = len(self._current) - len(failed)
        if slot not in failed or not choose_count(left, self.policy.counts):
            return False
        self._left_out |= failed
        self._left_out_reason = f"{slot.host.name} failed before its first step and is left out"
        return True

    def give_up_count(self) -> bool:
        """Permit the current number of workers no longer, after a start that has refused it.

        Some models need parts of a batch of one size, and so a number of workers that divides the
        lanes. Without them the job must not end because it lost a host.

        Returns:
          Whether the number is not that of the full job, and a smaller one is permitted.
        """
        full, *_ = self.policy.counts
        number = len(self._current)
        counts = tuple(count for count in self.policy.counts if count != number)
        if number == full or not choose_count(number, counts):
            return False
        self.policy = replace(self.policy, counts=counts)
        self._left_out_reason = f"{plural(number, 'worker')} cannot train this model"
        return True

    def watch(self) -> HostWatch:
        """Return a context that watches for hosts to grow with, if the job may grow."""
        is_full = len(self._current) >= self.policy.counts[0]
        first_in_s = growth_allowed_in_s(
            self.policy.regrow_after_s, self._last_growth_at, time.monotonic()
        )
        return HostWatch(
            self._find_growth,
            first_in_s=None if is_full else first_in_s,
            interval_s=look_interval_s(self.policy.regrow_after_s),
        )

    @property
    def _current(self) -> tuple[Slot, ...]:
        return self._starts[-1] if self._starts else ()

    @property
    def _known(self) -> Collection[Slot]:
        """The slots that the job has used, or was to use at its first start."""
        return {
            *self._pool.first[: self.policy.counts[0]],
            *(s for ss in self._starts for s in ss),
        }

    def _lost(self) -> Collection[Slot]:
        pairs = self.lost_workers(len(self._starts))
        starts = self._starts
        lost = {starts[start][worker] for start, worker in pairs if start < len(starts)}
        return lost | self._left_out

    def _find_growth(self, stopped: Callable[[], bool]) -> str:
        """Return how the job could grow; called by the watch's thread while the job runs.

        Nothing that this reads changes meanwhile: `choose` runs only after the watch has ended.
        """
        current = self._current
        look = self._pool.look(lost=self._lost(), running=current, stopped=stopped)
        chosen = select_slots(look.up, current, self.policy.counts)
        if len(chosen) <= len(current):
            return ""
        reason = describe_change(current, chosen, up=look.up, known=self._known)
        return f"{reason}: saving a checkpoint to go on with {plural(len(chosen), 'worker')}"
