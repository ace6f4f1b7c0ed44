"""The view that writes history.jsonl: the events of all workers, the supervisor's actions.

`launcher.job.history.history_line` defines the lines.
"""

import contextlib
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from tenfold.data.errors import naming_file
from tenfold.data.storage.local_folder import open_appending
from tenfold.launcher.display.view import View
from tenfold.launcher.job.events import (
    CheckpointSaved,
    Error,
    Exit,
    NotFinite,
    Phase,
    Resumed,
    Started,
    Step,
    WorkerEvent,
    WorkerPreempted,
)
from tenfold.launcher.job.history.goodput import Goodput
from tenfold.launcher.job.history.goodput_meter import GoodputMeter
from tenfold.launcher.job.history.history_line import (
    NO_WORKER,
    Entry,
    HistoryLine,
    LaunchBegun,
    Note,
    Resized,
    StepProgress,
    WorkerExit,
    encode_history,
)
from tenfold.launcher.job.worker_record import WorkerRecord

STEP_INTERVAL_S: Final = 1.0  # between two step lines of a worker


class HistoryView:
    """A view that appends to history.jsonl and passes every call on to another view.

    Args:
      view: the view that shows the job.
      path: the file to append to.
      hosts: the host of each worker of the job.
    """

    def __init__(self, view: View, path: Path, *, hosts: Sequence[str]) -> None:
        self._view = view
        self._file = open_appending(path)
        self._steps = StepLines()
        self._peaks: dict[int, int] = defaultdict(int)
        self._waiting = ""
        self._meter = GoodputMeter()
        self._write(LaunchBegun(len(hosts), tuple(hosts)))

    def line(self, worker: int, line: str) -> None:
        """Pass a line of output on; the workers' log files hold it."""
        self._view.line(worker, line)

    def event(self, worker: int, event: WorkerEvent) -> None:
        """Write an event of a worker."""
        match event.message:
            case Step() as step:
                self._write_step(worker, self._steps.take(worker, step, time.time()))
            case Exit() as ended:
                peak = self._peaks.pop(worker, 0)
                self._write_event(worker, event, WorkerExit(**asdict(ended), peak_rss_bytes=peak))
            case (
                Started()
                | Phase()
                | Error()
                | CheckpointSaved()
                | NotFinite()
                | WorkerPreempted()
                | Resumed() as message
            ):
                self._write_event(worker, event, message)
        self._view.event(worker, event)

    def note(self, text: str) -> None:
        """Write a message of the supervisor."""
        self._write(Note(text))
        self._view.note(text)

    def resized(self, change: Resized) -> None:
        """Write that the workers are going to start on other hosts."""
        self._write(change)
        self._view.resized(change)

    def wait(self, activity: str) -> None:
        """Write a message when the supervisor begins to wait for something."""
        if activity != self._waiting:
            self._waiting = activity
            self._write(Note(activity))
        self._view.wait(activity)

    def tick(self, records: Sequence[WorkerRecord]) -> None:
        """Record the peak memory of each worker."""
        for record in records:
            self._peaks[record.index] = max(self._peaks[record.index], record.rss_bytes)
        self._view.tick(records)

    def close(self) -> None:
        """Close the file; a line that could not be written has been reported before."""
        with contextlib.suppress(OSError):
            self._file.close()
        self._view.close()

    def goodput(self, state: str, seconds: float | None = None) -> Goodput | None:
        """Return the goodput of this launch so far, see `GoodputMeter.goodput`."""
        return self._meter.goodput(time.time(), seconds=seconds, state=state)

    def _write_step(self, worker: int, progress: StepProgress | None) -> None:
        if progress:
            self._write(progress, worker)

    def _write_event(self, worker: int, event: WorkerEvent, entry: Entry) -> None:
        self._write_step(worker, self._steps.finish(worker, time.time()))
        self._write(entry, worker, event.phase)

    def _write(self, entry: Entry, worker: int = NO_WORKER, phase: str = "") -> None:
        line = HistoryLine(round(time.time(), 3), entry, worker, phase)
        self._meter.take(line)
        with naming_file(self._file.name):
            self._file.write(encode_history(line))


class StepLines:
    """Thins steps to one line per second and worker, summing waiting and exchanging."""

    def __init__(self) -> None:
        self._heard_at: dict[int, float] = {}
        self._written_at: dict[int, float] = defaultdict(float)
        self._waited_s: dict[int, float] = defaultdict(float)
        self._exchanged_s: dict[int, float] = {}
        self._pending: dict[int, Step] = {}

    def take(self, worker: int, step: Step, now: float) -> StepProgress | None:
        """Add a step; return a line, or None if the last line is too recent.

        Args:
          worker: index of the worker.
          step: the step that the worker reported.
          now: seconds since 1970.
        """
        passed_s = now - self._heard_at.get(worker, now)
        if step.wait_share is not None:
            self._waited_s[worker] += step.wait_share * passed_s
        if step.exchange_share is not None:
            before_s = self._exchanged_s.get(worker, 0.0)
            self._exchanged_s[worker] = before_s + step.exchange_share * passed_s
        self._heard_at[worker] = now
        self._pending[worker] = step
        is_due = now - self._written_at[worker] >= STEP_INTERVAL_S
        return self._progress(worker, now) if is_due else None

    def finish(self, worker: int, now: float) -> StepProgress | None:
        """Return the last step if no line holds it yet, because another phase begins."""
        progress = self._progress(worker, now) if worker in self._pending else None
        self._heard_at[worker] = now  # time before now does not belong to the next step
        return progress

    def _progress(self, worker: int, now: float) -> StepProgress:
        self._written_at[worker] = now
        step = self._pending.pop(worker)
        exchanged_s = self._exchanged_s.pop(worker, None)
        return StepProgress(
            step=step.step,
            epoch=step.epoch,
            total_steps=step.total_steps,
            loss=step.loss,
            records_per_s=step.records_per_s,
            waited_s=round(self._waited_s.pop(worker, 0.0), 4),
            exchanged_s=None if exchanged_s is None else round(exchanged_s, 4),
        )
