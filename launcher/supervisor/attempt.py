"""One attempt: all workers from their start until all are gone."""

import math
import signal
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from tenfold.launcher.display.view import View
from tenfold.launcher.display.worker_logs import WorkerLogs
from tenfold.launcher.job.events import Result
from tenfold.launcher.job.worker_record import WorkerRecord
from tenfold.launcher.supervisor.stack_dumps import describe_location, holds_up_others
from tenfold.launcher.supervisor.verdict import Verdict, has_failed, is_consequence, judge
from tenfold.launcher.supervisor.watchdog import Finding, WatchPolicy, find_hang
from tenfold.launcher.supervisor.worker_processes import (
    AGENT_LINGER_S,
    WorkerMessage,
    WorkerProcesses,
)
from tenfold.launcher.worker.stop_signals import StopRequest

TICK_S: Final = 0.1
# How long others may take to say what they know, once one has failed. Where all that is
# known blames a peer, the cause is given longer to show itself.
SETTLE_S: Final = 0.25
SETTLE_BLAMED_S: Final = 0.8
# A user's program gets this long to put its things in order when a peer has failed. The
# built-in trainer gets none: without its peers it has nothing left to save.
FAILURE_GRACE_S: Final = 2.0
# Who has told its own error goes at once; its exit status belongs to the verdict.
DYING_S: Final = 2.0
DUMP_S: Final = 2.0
# Lines are shown this late, so that the echo of a failure on the other workers, which may
# come before the failure itself, can be left out.
SHOW_AFTER_S: Final = 0.5
# Between two looks at the workers pass TICK_S. Where it is so long, this process stood still: the
# machine slept or was paused, or a terminal took no more text.
STALL_S: Final = 0.5


class Injector(Protocol):
    """A fault that is put into a running attempt on purpose."""

    def act(self, records: Sequence[WorkerRecord], processes: WorkerProcesses) -> None:
        """Called several times a second."""
        ...


@dataclass
class Attempt:
    """One start of all workers. After `run`, `verdict` and `final` say how it was."""

    processes: WorkerProcesses
    records: tuple[WorkerRecord, ...]
    view: View
    logs: WorkerLogs
    stop: StopRequest
    watch: WatchPolicy
    grace_s: float
    failure_grace_s: float
    injectors: Sequence[Injector] = ()
    verdict: Verdict | None = None
    final: dict[str, Any] = field(default_factory=dict)
    _failed_at: float | None = None
    _dump_until: float | None = None
    _finding: Finding | None = None
    _lines: deque[tuple[float, int, str]] = field(default_factory=deque)
    _stops_asked: int = 0
    _give_up_at: float = math.inf
    _looked_at: float = field(default_factory=lambda: time.time())

    @property
    def cancelled(self) -> bool:
        """Whether it ended because this process was asked to stop."""
        return self._stops_asked > 0 and not all(r.exit_code == 0 for r in self.records)

    @property
    def first_step_at(self) -> float | None:
        """When the first worker reported its first step, in seconds since 1970."""
        return min((r.first_step_at for r in self.records if r.first_step_at), default=None)

    def run(self) -> None:
        """Runs until all workers are gone, or do not go though they were told to."""
        while self.processes.running and time.monotonic() < self._give_up_at:
            for heard in self.processes.poll(TICK_S):
                self._take(heard)
            self._obey_stop()
            if not self._stops_asked and self.verdict is None:
                self._oversee()
            if self._failed_at is None or self.verdict:
                self._show_lines(before=time.monotonic() - SHOW_AFTER_S)
            self.view.tick(self.records)
        if not self._stops_asked and self.verdict is None and judge(self.records):
            self._conclude()
        self._show_lines(before=math.inf)

    def _take(self, heard: WorkerMessage) -> None:
        record = self.records[heard.worker]
        now = self._now()
        if heard.line is not None:
            record.take_line(heard.line, now)
            self.logs.write(heard.worker, heard.line)
            if self.verdict is None:
                self._lines.append((time.monotonic(), heard.worker, heard.line))
        elif heard.event is not None:
            record.take_event(heard.event, now)
            self.view.event(heard.worker, heard.event)
            if isinstance(heard.event.message, Result) and heard.worker == 0:
                self.final = dict(heard.event.message.figures)
        else:
            record.mark_lost(now)

    def _now(self) -> float:
        """Returns the time, in seconds since 1970. What passed while this process itself stood
        still was nobody's silence.
        """
        now, before = time.time(), self._looked_at
        self._looked_at = now
        if now - before > STALL_S:
            self._forgive(now - before - TICK_S)
        return now

    def _forgive(self, seconds: float) -> None:
        for record in self.records:
            record.shift_clock(seconds)
        now = time.monotonic()  # which does not count a machine's sleep
        if self._failed_at is not None:
            self._failed_at = min(self._failed_at + seconds, now)
        if self._dump_until is not None:
            self._dump_until = min(self._dump_until + seconds, now + DUMP_S)

    def _stop(self, grace_s: float) -> None:
        """Stops all workers. An agent on a host that stands still hears nothing of it."""
        self.processes.stop(grace_s)
        self._give_up_at = time.monotonic() + grace_s + AGENT_LINGER_S

    def _show_lines(self, *, before: float) -> None:
        while self._lines and self._lines[0][0] <= before:
            _, worker, line = self._lines.popleft()
            self.view.line(worker, line)

    def _obey_stop(self) -> None:
        """The first signal asks the workers to end, the second makes them."""
        asked = self.stop.count  # read once: another may come at any moment
        if asked > self._stops_asked:
            self._stops_asked = asked
            self._stop(self.grace_s if asked == 1 else 0.0)
            hint = "; once more to kill them" if asked == 1 else ""
            self.view.note(f"stopping the workers{hint}")

    def _oversee(self) -> None:
        now = self._now()
        for injector in self.injectors:
            injector.act(self.records, self.processes)
        if self._dump_until is not None:
            self._finish_dump()
        elif any(has_failed(record) for record in self.records):
            self._settle()
        elif finding := find_hang(self.watch, self.records, now=now):
            self._dump(finding)

    def _settle(self) -> None:
        failed = [record for record in self.records if has_failed(record)]
        now = time.monotonic()
        self._failed_at = self._failed_at or now
        others = any(not has_failed(record) and not record.ended for record in self.records)
        if now - self._failed_at >= _patience_s(failed, others):
            self._conclude()

    def _conclude(self) -> None:
        self.verdict = judge(self.records)
        assert self.verdict is not None
        first = self.verdict.first
        # Of the last moments only what the first to fail said is shown; the logs have all. Where
        # its host failed, it too says that of the others.
        blames = is_consequence(self.records[first.worker])
        shown = () if blames else (first.worker,)
        self._lines = deque(entry for entry in self._lines if entry[1] in shown)
        self._show_lines(before=math.inf)
        what = "was preempted" if self.verdict.preempted else f"failed: {first.error}"
        self.view.note(f"worker {first.worker} {what}; stopping the others")
        # Preempted workers save a checkpoint together: they need their peers.
        self._stop(self.grace_s if self.verdict.preempted else self.failure_grace_s)

    def _dump(self, finding: Finding) -> None:
        """Notes who is to blame, and has every worker print its Python stack and die."""
        names = ", ".join(f"worker {worker}" for worker in finding.workers)
        self.view.note(f"{names}: {finding.reason}; asking all workers for their stacks")
        self._finding = finding
        self._dump_until = time.monotonic() + DUMP_S
        for record in self.records:
            self.processes.signal(record.index, signal.SIGABRT)

    def _finish_dump(self) -> None:
        answered = all(record.ended or record.state in ("T", "t") for record in self.records)
        assert self._dump_until is not None
        assert self._finding is not None
        if not answered and time.monotonic() < self._dump_until:
            return
        culprits = self._culprits()
        for record in (one for one in self.records if one.exit_code != 0):
            where = describe_location(record.stack)
            if record.index in culprits:
                record.note = self._finding.reason + (f"; it was {where}" if where else "")
            else:
                record.echo = "waited" + (f" {where}" if where else "")
        self._conclude()

    def _culprits(self) -> tuple[int, ...]:
        """Where several hang, those in the user's own code or without input hold up the others."""
        assert self._finding is not None
        suspects = self._finding.workers
        busy = tuple(worker for worker in suspects if holds_up_others(self.records[worker].stack))
        return busy or suspects


def _patience_s(failed: Sequence[WorkerRecord], others: bool) -> float:
    """How long `others`, and a cause that is still dying, may take to say what they know."""
    causes = [record for record in failed if not is_consequence(record)]
    if any(record.error is not None and not record.ended for record in causes):
        return DYING_S
    if not causes:
        return SETTLE_BLAMED_S
    return SETTLE_S if others else 0.0
