"""One attempt: all workers that this process supervises, from their start until all have ended.

Everything runs on the supervisor's main thread: `run` reads the workers' messages, then acts.
Signals only count up in `StopRequest`.
"""

import math
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from tenfold.launcher.display.view import View
from tenfold.launcher.display.worker_logs import WorkerLogs
from tenfold.launcher.job.events import NotFinite, Remark, Result
from tenfold.launcher.job.worker_record import WorkerRecord
from tenfold.launcher.supervisor.stack_dumps import describe_location, holds_up_others
from tenfold.launcher.supervisor.verdict import Verdict, has_failed, is_consequence, judge
from tenfold.launcher.supervisor.watchdog import Hang, WatchPolicy, find_hang
from tenfold.launcher.supervisor.worker_processes import (
    AGENT_LINGER_S,
    WorkerMessage,
    WorkerProcesses,
)
from tenfold.launcher.worker.stop_signals import StopRequest

TICK_S: Final = 0.1
# After a first failure, wait this long for other workers' errors; longer if every error so far
# only reports a lost peer.
SETTLE_S: Final = 0.25
SETTLE_BLAMED_S: Final = 0.8
# Time for a user's program to save its state when a peer has failed. The built-in trainer gets
# none: without its peers it has nothing left to save.
FAILURE_GRACE_S: Final = 2.0
# Time for a worker that has reported its own error to exit: the verdict holds its exit status.
DYING_S: Final = 2.0
# Time for all workers to print their stacks.
DUMP_S: Final = 2.0
# Output is shown this late. Other workers' lines about a failure, which may arrive before the
# failure itself, can then be left out.
SHOW_AFTER_S: Final = 0.5
# TICK_S passes between two looks at the workers. A longer gap means that this process was
# suspended: the machine slept, or the terminal took no more text.
STALL_S: Final = 0.5
# Time for the workers to save a checkpoint before the job grows. There is no hurry.
GROWTH_GRACE_S: Final = 120.0
# A worker that has reported nothing for this long since its start belongs to a program that
# reports no steps. Others are left alone until their first step: they have nothing to save yet.
SILENT_START_S: Final = 30.0
# Steps that are left out because they are not finite: the first are shown.
MAX_SKIPS_SHOWN: Final = 10


class Injector(Protocol):
    """Injects faults into a running attempt."""

    def act(self, records: Sequence[WorkerRecord], processes: WorkerProcesses) -> None:
        """Carry out the faults that are due; called several times a second."""
        ...


@dataclass
class Attempt:
    """One start of all workers; a member of a joined job supervises one worker of several.

    After `run`, `verdict` is the judgement on its failure, None where there was none, and `final`
    holds the final figures that the chief reported. `find_growth` returns how the job could grow,
    "" as long as it cannot; the attempt then stops the workers, and `growth` is its answer.
    `stopped_at` is the time, in seconds since 1970, when it did so.
    """

    processes: WorkerProcesses
    records: tuple[WorkerRecord, ...]
    view: View
    logs: WorkerLogs
    stop: StopRequest
    watch: WatchPolicy
    grace_s: float
    failure_grace_s: float
    injectors: Sequence[Injector] = ()
    find_growth: Callable[[], str] = lambda: ""
    growth: str = ""
    stopped_at: float = 0.0
    verdict: Verdict | None = None
    final: dict[str, Any] = field(default_factory=dict)
    _began: float = field(default_factory=lambda: time.monotonic())
    _failed_at: float | None = None
    _dump_until: float | None = None
    _finding: Hang | None = None
    _lines: deque[tuple[float, int, str]] = field(default_factory=deque)
    _stops_handled: int = 0
    _skipped: int = 0
    _stop_waiting_at: float = math.inf
    _looked_at: float = field(default_factory=lambda: time.time())

    @property
    def cancelled(self) -> bool:
        """Whether the attempt ended because this process was asked to stop."""
        return self._stops_handled > 0 and not all(r.exit_code == 0 for r in self.records)

    @property
    def stopped_to_grow(self) -> bool:
        """Whether the attempt ended so that the job can grow."""
        complete = all(_has_finished(record) for record in self.records)
        return bool(self.growth) and not self.cancelled and not complete

    @property
    def failed_at_start(self) -> bool:
        """Whether the worker that failed first had not made a step."""
        if self.verdict is None or self.verdict.preempted:
            return False
        record = self._record_of(self.failed_worker)
        is_silent = not record.reports_phases and time.monotonic() - self._began > SILENT_START_S
        return not record.first_step_at and not is_silent

    @property
    def failed_worker(self) -> int:
        """The worker that failed first; only after a failure."""
        assert self.verdict is not None
        return self.verdict.first.worker

    @property
    def first_step_at(self) -> float | None:
        """When the first worker reported its first step, in seconds since 1970."""
        return min((r.first_step_at for r in self.records if r.first_step_at), default=None)

    def run(self) -> None:
        """Run until all workers have ended, or have not ended in time after being stopped."""
        while self.processes.running and time.monotonic() < self._stop_waiting_at:
            for message in self.processes.poll(TICK_S):
                self._take(message)
            self._act_on_stop()
            if not self._is_stopping and self.verdict is None:
                self._oversee()
            if self._failed_at is None or self.verdict:
                self._show_lines(before=time.monotonic() - SHOW_AFTER_S)
            self.view.tick(self.records)
        if not self._is_stopping and self.verdict is None and judge(self.records):
            self._conclude()
        self._show_lines(before=math.inf)

    @property
    def _is_stopping(self) -> bool:
        """Whether the workers have been told to stop: their failures then mean nothing."""
        return self._stops_handled > 0 or bool(self.growth)

    def _take(self, message: WorkerMessage) -> None:
        worker, now = message.worker, self._now()
        record = self._record_of(worker)
        if message.line is not None:
            record.take_line(message.line, now)
            self.logs.write(worker, message.line)
            if self.verdict is None:
                self._lines.append((time.monotonic(), worker, message.line))
        elif message.event is not None:
            record.take_event(message.event, now)
            self.view.event(worker, message.event)
            if isinstance(message.event.message, NotFinite) and worker == 0:
                self._note_not_finite(message.event.message)
            if isinstance(message.event.message, Remark) and worker == 0:
                self.view.note(message.event.message.text)
            if isinstance(message.event.message, Result) and worker == 0:
                self.final = dict(message.event.message.figures)
        else:
            record.mark_lost(now)

    def _note_not_finite(self, found: NotFinite) -> None:
        """Show values that are not finite and do not end the job; its verdict shows the others."""
        if found.is_skipped:
            self._skipped += 1
            if self._skipped <= MAX_SKIPS_SHOWN:
                more = "; further ones are counted only" * (self._skipped == MAX_SKIPS_SHOWN)
                self.view.note(found.sentence + more)
        elif found.action == "ignore" or found.kept_step is not None:
            self.view.note(found.sentence)

    def _record_of(self, worker: int) -> WorkerRecord:
        return next(record for record in self.records if record.index == worker)

    def _now(self) -> float:
        """Return the time in seconds since 1970.

        If this process was suspended since the last call, shift all timestamps: no worker was
        silent during that time, because nobody listened.
        """
        now, before = time.time(), self._looked_at
        self._looked_at = now
        if now - before > STALL_S:
            self._shift_clocks(now - before - TICK_S)
        return now

    def _shift_clocks(self, seconds: float) -> None:
        for record in self.records:
            record.shift_clock(seconds)
        now = time.monotonic()  # does not advance while the machine sleeps
        if self._failed_at is not None:
            self._failed_at = min(self._failed_at + seconds, now)
        if self._dump_until is not None:
            self._dump_until = min(self._dump_until + seconds, now + DUMP_S)

    def _stop(self, grace_s: float) -> None:
        """Stop all workers, and stop waiting later: a frozen host does not get the command."""
        self.processes.stop(grace_s)
        self._stop_waiting_at = time.monotonic() + grace_s + AGENT_LINGER_S

    def _show_lines(self, *, before: float) -> None:
        while self._lines and self._lines[0][0] <= before:
            _, worker, line = self._lines.popleft()
            self.view.line(worker, line)

    def _act_on_stop(self) -> None:
        """Stop the workers with a grace period at the first signal, kill them at the second."""
        count = self.stop.count  # read once: a signal handler may raise it at any moment
        if count > self._stops_handled:
            self._stops_handled = count
            self._stop(self.grace_s if count == 1 else 0.0)
            hint = "; interrupt again to kill them" if count == 1 else ""
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
        elif self._can_save():
            self._stop_to_grow()

    def _can_save(self) -> bool:
        """Whether every worker runs, and has made a step if its program reports any."""
        is_silent = time.monotonic() - self._began > SILENT_START_S
        return all(
            record.pid is not None
            and not record.ended
            and (record.step is not None or (is_silent and not record.reports_phases))
            for record in self.records
        )

    def _stop_to_grow(self) -> None:
        """Have all workers save a checkpoint and stop, if the job can grow."""
        self.growth = self.find_growth()
        if self.growth:
            self.stopped_at = time.time()
            self.view.note(self.growth)
            self._stop(max(self.grace_s, GROWTH_GRACE_S))

    def _settle(self) -> None:
        failed = [record for record in self.records if has_failed(record)]
        now = time.monotonic()
        self._failed_at = self._failed_at or now
        others_run = any(not has_failed(record) and not record.ended for record in self.records)
        if now - self._failed_at >= _settle_s(failed, others_run=others_run):
            self._conclude()

    def _conclude(self) -> None:
        self.verdict = judge(self.records)
        assert self.verdict is not None
        first = self.verdict.first
        # Of the pending output show the lines of the first to fail alone; the logs hold all. If
        # its host failed, its own lines blame the peers and are left out too. A member of a
        # joined job has no other lines to show.
        blames_peers = len(self.records) > 1 and is_consequence(self._record_of(first.worker))
        shown = () if blames_peers else (first.worker,)
        self._lines = deque(entry for entry in self._lines if entry[1] in shown)
        self._show_lines(before=math.inf)
        end = "was preempted" if self.verdict.preempted else f"failed: {first.error}"
        others = "; stopping the others" if len(self.records) > 1 else ""
        self.view.note(f"worker {first.worker} {end}{others}")
        # Preempted workers save a checkpoint together, so the others need the grace period.
        self._stop(self.grace_s if self.verdict.preempted else self.failure_grace_s)

    def _dump(self, finding: Hang) -> None:
        """Note the watchdog's finding, and make every worker print its Python stack and abort."""
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
        for record in self.records:
            if record.exit_code == 0:
                continue
            where = describe_location(record.stack)
            if record.index in culprits:
                record.note = self._finding.reason + (f"; it was {where}" if where else "")
            else:
                record.echo = "waited" + (f" {where}" if where else "")
        self._conclude()

    def _culprits(self) -> tuple[int, ...]:
        """Return the workers to blame: of several that hang, those that hold up the others."""
        assert self._finding is not None
        suspects = self._finding.workers
        busy = tuple(
            worker for worker in suspects if holds_up_others(self._record_of(worker).stack)
        )
        return busy or suspects


def _has_finished(record: WorkerRecord) -> bool:
    """Whether a worker has done all its work; one that was told to stop may exit with 0 too."""
    at_end = record.total_steps is not None and (record.step or 0) >= record.total_steps
    return record.exit_code == 0 and (record.done or at_end or not record.stopped_by_us)


def _settle_s(failed: Sequence[WorkerRecord], *, others_run: bool) -> float:
    """Return how long to wait, after the first failure, for the errors of other workers."""
    causes = [record for record in failed if not is_consequence(record)]
    if any(record.error is not None and not record.ended for record in causes):
        return DYING_S
    if not causes:
        return SETTLE_BLAMED_S
    return SETTLE_S if others_run else 0.0
