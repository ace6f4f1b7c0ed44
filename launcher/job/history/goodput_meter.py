"""Follows a launch line by line of its history, and tells its goodput at any moment. Pure."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from tenfold.launcher.job.events import (
    CheckpointSaved,
    Error,
    NotFinite,
    Phase,
    Resumed,
    Started,
    WorkerPreempted,
)
from tenfold.launcher.job.history.goodput import Goodput, Pace, TimePart, lose_after, sum_up
from tenfold.launcher.job.history.history_line import (
    HistoryLine,
    LaunchBegun,
    StepProgress,
    WorkerExit,
)

# The kind of time of each phase of `launcher.job.events`; "" is a program that reports none.
_OF_PHASE: Final = {
    "": "start", "import": "start", "rendezvous": "start", "build": "build",
    "first_step": "build", "training": "steps", "evaluation": "evaluation",
    "prediction": "evaluation", "checkpoint": "checkpoint", "saving": "checkpoint",
    "diagnosis": "end", "done": "end",
}  # fmt: skip
_BEFORE_STEPS: Final = ("start", "build", "restart")

# Neighbouring parts of time are joined when there are more: a long job needs no more memory.
MAX_PARTS: Final = 4096


class GoodputMeter:
    """Takes the lines of a history in their order; a line that begins a launch resets it."""

    def __init__(self) -> None:
        self._begin(0)

    def _begin(self, now_ms: int) -> None:
        self._parts: list[TimePart] = []
        self._begun_ms = self._now_ms = now_ms
        self._kind = "start"
        self._step = 0  # done by worker 0
        self._saved_step = 0  # of the newest checkpoint
        self._starts = 0
        self._reports_phases = self._reports_steps = False
        self._is_resuming = False  # restarted, and where it continues is not known yet
        self._is_over = False  # a worker of this attempt has ended
        self._paces: dict[int, Pace] = {}
        # When each worker has made its last step, or gone on training, and that step.
        self._last: dict[int, tuple[float | None, int | None]] = {}

    def take(self, line: HistoryLine) -> None:
        """Take the next line."""
        if isinstance(line.entry, LaunchBegun):
            self._begin(_milliseconds(line.time))
            return
        self._follow_pace(line)
        if isinstance(line.entry, Error | WorkerExit | WorkerPreempted):
            self._take_end(line)
        elif line.worker != 0:
            return
        elif isinstance(line.entry, Started):
            self._start_again(line)
        elif not self._is_over:
            self._take_progress(line)

    def goodput(self, now: float, *, seconds: float | None = None, state: str) -> Goodput | None:
        """Return the goodput of the launch up to `now`, None before the first step.

        Args:
          now: the end of the launch so far, in seconds since 1970.
          seconds: its wall time, by a clock that nobody sets; by default since its first line.
          state: ``running``, or how the job ended. What a failed or cancelled training did after
            its newest checkpoint is lost.
        """
        if not self._reports_steps:
            return None
        end_ms = max(_milliseconds(now), self._now_ms)
        parts = [*self._parts, self._present(end_ms)]
        if self._reports_phases and state not in ("running", "succeeded"):
            parts = lose_after(parts, self._saved_step)
        if seconds is not None:
            parts = _fitted(parts, round(1000 * seconds))
        return sum_up(parts, [self._paces[worker] for worker in sorted(self._paces)])

    # --- the kinds of time, by worker 0 ---

    def _present(self, now_ms: int) -> TimePart:
        return TimePart(self._kind, max(0, now_ms - self._now_ms), self._step, self._step)

    def _move(self, line: HistoryLine, kind: str) -> None:
        """End the present part of time at the time of `line`; one of `kind` begins."""
        now_ms = max(_milliseconds(line.time), self._now_ms)
        self._add(self._present(now_ms))
        self._now_ms, self._kind = now_ms, kind

    def _add(self, part: TimePart) -> None:
        if part.ms:
            self._parts.append(part)
        if len(self._parts) > MAX_PARTS:
            self._parts = _joined(self._parts)

    def _take_end(self, line: HistoryLine) -> None:
        """A worker has ended, or is about to."""
        if isinstance(line.entry, WorkerExit) and line.worker != 0 and not line.entry.code:
            return  # the others may have more to do
        if not self._is_over:
            self._move(line, "end")
        self._is_over = True

    def _start_again(self, line: HistoryLine) -> None:
        self._starts += 1
        if self._starts > 1:
            self._kind = "restart"
            self._is_resuming = True
        self._is_over = False
        self._move(line, "restart" if self._starts > 1 else "start")

    def _take_progress(self, line: HistoryLine) -> None:
        match line.entry:
            case Phase():
                self._reports_phases = True
                kind = _OF_PHASE.get(line.phase, "end")
                is_restart = self._starts > 1 and kind in _BEFORE_STEPS
                self._move(line, "restart" if is_restart else kind)
            case Resumed(step=step):
                self._continue_after(step)
                self._saved_step = step
            case CheckpointSaved(step=step):
                self._saved_step = step
            case NotFinite(kept_step=int(step)):
                self._move(line, "end")
                self._continue_after(step)
            case StepProgress() as progress:
                self._take_step(line, progress)

    def _take_step(self, line: HistoryLine, progress: StepProgress) -> None:
        if self._kind != "steps" and self._kind not in _BEFORE_STEPS:
            return  # an evaluation reports its batches as steps
        self._reports_steps = True
        if self._is_resuming:  # the trainer without a checkpoint begins again
            self._continue_after(0 if self._reports_phases else progress.step - 1)
        if self._kind == "steps":
            self._add_steps(line, progress)
        else:
            self._move(line, "steps")
        self._step = progress.step

    def _add_steps(self, line: HistoryLine, progress: StepProgress) -> None:
        now_ms = max(_milliseconds(line.time), self._now_ms)
        ms = now_ms - self._now_ms
        waited_ms = _within(progress.waited_s, ms)
        exchanged_ms = _within(progress.exchanged_s or 0.0, ms - waited_ms)
        last = max(progress.step, self._step)
        self._add(TimePart("steps", ms, self._step, last, waited_ms, exchanged_ms))
        self._now_ms = now_ms

    def _continue_after(self, step: int) -> None:
        self._parts = lose_after(self._parts, step)
        self._step, self._is_resuming = step, False

    # --- the pace of every worker ---

    def _follow_pace(self, line: HistoryLine) -> None:
        worker = line.worker
        match line.entry:
            case Started():
                if worker == 0:  # with another number of workers, perhaps
                    self._paces.clear()
                self._paces[worker] = Pace()
                self._last.pop(worker, None)
            case Phase():
                since = line.time if line.phase == "training" else None
                self._last[worker] = since, self._last.get(worker, (None, None))[1]
            case StepProgress() as progress if worker in self._paces:
                self._add_pace(line, progress)

    def _add_pace(self, line: HistoryLine, progress: StepProgress) -> None:
        pace = self._paces[worker := line.worker]
        since, step = self._last.get(worker, (None, None))
        if since is not None and step is not None and progress.step > step:
            pace.steps += progress.step - step
            pace.seconds += max(0.0, line.time - since)
            pace.exchanged_s += progress.exchanged_s or 0.0
            pace.is_measured = progress.exchanged_s is not None
        self._last[worker] = line.time, progress.step


def measure_goodput(lines: Iterable[HistoryLine], *, now: float, state: str) -> Goodput | None:
    """Return the goodput of the last launch of a history; see `GoodputMeter.goodput`."""
    meter = GoodputMeter()
    for line in lines:
        meter.take(line)
    return meter.goodput(now, state=state)


def _milliseconds(time_s: float) -> int:
    return round(1000 * time_s)


def _within(seconds: float, limit_ms: int) -> int:
    return min(max(0, _milliseconds(seconds)), limit_ms)


def _fitted(parts: list[TimePart], wall_ms: int) -> list[TimePart]:
    """Return parts of time that sum to `wall_ms`; the first, the start, takes up the difference.

    The launch began a moment before its first line, and the clock may have been set meanwhile.
    """
    missing = wall_ms - sum(part.ms for part in parts)
    if missing >= 0:
        return [TimePart("start", missing), *parts]
    kept: list[TimePart] = []
    for part in parts:
        cut = min(part.ms, -missing)
        missing += cut
        ms = part.ms - cut
        waited_ms = min(part.waited_ms, ms)
        exchanged_ms = min(part.exchanged_ms, ms - waited_ms)
        kept.append(replace(part, ms=ms, waited_ms=waited_ms, exchanged_ms=exchanged_ms))
    return kept


def _joined(parts: list[TimePart]) -> list[TimePart]:
    """Return about half as many parts: pairs of neighbours with consecutive steps as one."""
    joined: list[TimePart] = []
    may_join = True
    for part in parts:
        last = joined[-1] if joined else None
        if may_join and last and last.kind == part.kind and last.last_step == part.first_step:
            joined[-1] = TimePart(
                last.kind,
                last.ms + part.ms,
                last.first_step,
                part.last_step,
                last.waited_ms + part.waited_ms,
                last.exchanged_ms + part.exchanged_ms,
            )
            may_join = False
        else:
            joined.append(part)
            may_join = True
    return joined
