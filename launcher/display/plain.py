"""The view of a job as plain lines, for logs and pipes."""

import sys
import time
from collections.abc import Sequence
from typing import IO, Final

from tenfold.data.units import format_duration
from tenfold.launcher.display.progress.epoch_lines import EpochLines
from tenfold.launcher.display.progress.job_progress import Activity, JobProgress, ProgressTracker
from tenfold.launcher.display.worker_logs import is_noise
from tenfold.launcher.job.events import Epoch, WorkerEvent
from tenfold.launcher.job.history.history_line import Resized
from tenfold.launcher.job.worker_record import WorkerRecord

# Longer lines of a worker's output are cut on the screen; its log file holds them whole.
SHOWN_CHARS: Final = 2000

# Between two lines of progress. It doubles as long as nothing but the time changes: a log must
# show that the job is alive, but not fill up.
PLAIN_INTERVAL_S: Final = 10.0

MAX_NAMED: Final = 8  # workers that a line of progress names


class PlainView:
    """Prints lines to a stream, standard error by default; a line of progress per interval.

    Args:
      stream: the stream to print to.
      tracker: follows the progress of the job.
      show_tf_logs: whether to show the log lines of TensorFlow's C++ code too.
    """

    def __init__(
        self,
        stream: IO[str] | None = None,
        *,
        tracker: ProgressTracker | None = None,
        show_tf_logs: bool = False,
    ) -> None:
        self._stream = stream or sys.stderr
        self._tracker = tracker or ProgressTracker()
        self._show_all = show_tf_logs
        self._epochs = EpochLines()
        self._waiting = ""  # the activity of `wait`, and since when
        self._waiting_since = 0.0
        self._last = ""  # the last line of progress
        self._interval = PLAIN_INTERVAL_S
        self._next = time.monotonic() + PLAIN_INTERVAL_S

    def line(self, worker: int, line: str) -> None:
        """Show a line of a worker's output."""
        if self._show_all or not is_noise(line):
            self._print(f"[worker {worker}] {line[:SHOWN_CHARS]}")

    def event(self, worker: int, event: WorkerEvent) -> None:
        """Show the epochs of worker 0: all workers report the same figures."""
        if isinstance(event.message, Epoch) and worker == 0:
            self._tracker.take_epoch(event.message)
            for line in self._epochs.lines(event.message):
                self._print(f"[tenfold] {line}")

    def note(self, text: str) -> None:
        """Show a message of the supervisor."""
        self._print(f"[tenfold] {text}")

    def resized(self, change: Resized) -> None:
        """Show that the workers are going to start on other hosts."""
        self._tracker.take_resize(change.before)
        self.note(change.text)

    def wait(self, activity: str) -> None:
        """Print the activity when it begins, then its duration when the interval is over."""
        now = time.monotonic()
        if activity != self._waiting:
            self._waiting, self._waiting_since = activity, now
            self._last, self._interval = activity, PLAIN_INTERVAL_S
            self._next = now + self._interval
            self._print(f"[tenfold] {activity}")
        elif now >= self._next:
            self._print_progress(activity, now - self._waiting_since)

    def tick(self, records: Sequence[WorkerRecord]) -> None:
        """Print a line of progress when the interval is over."""
        if time.monotonic() >= self._next:
            progress = self._tracker.progress(records, time.time())
            self._print_progress(progress_line(progress), waiting_s(progress))

    def close(self) -> None:
        """Flush the stream."""
        self._stream.flush()

    def _print_progress(self, text: str, seconds: float) -> None:
        """Print `text`, with the time that it has been true if the last line said the same."""
        self._interval = 2 * self._interval if text == self._last else PLAIN_INTERVAL_S
        lasting = f" ({format_duration(seconds)} so far)" if text == self._last else ""
        self._last = text
        self._next = time.monotonic() + self._interval
        self._print(f"[tenfold] {text}{lasting}")

    def _print(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


def progress_line(progress: JobProgress) -> str:
    """Return the progress of a job in one line, which changes only if the job does."""
    parts = [*step_parts(progress), progress.size_text, _activities_text(progress)]
    if progress.is_training and progress.remaining_s:
        parts.append(f"about {format_duration(progress.remaining_s)} left")
    return "; ".join(part for part in parts if part)


def step_parts(progress: JobProgress) -> list[str]:
    """Return the step, the epoch, the loss and the rate in words, as far as they are known."""
    if progress.step is None:
        return []
    words = [f"step {of_total(progress.step, progress.total_steps)}"]
    if progress.total_steps:
        words[0] += f" ({progress.step / progress.total_steps:.0%})"
    if progress.epoch is not None:
        words.append(f"epoch {of_total(progress.epoch + 1, progress.epochs)}")
    if progress.loss is not None:
        words.append(f"loss {progress.loss:.4g}")
    rate = progress.records_per_s
    return [", ".join(words)] + ([] if rate is None else [f"{rate:,.0f} records/s"])


def of_total(count: int, total: int | None) -> str:
    """Return ``12/2,000``, or ``12`` if the total is not known."""
    return f"{count:,}/{total:,}" if total else f"{count:,}"


def waiting_s(progress: JobProgress) -> float:
    """Return for how long the job has been where it is: since the last step if it is training."""
    if progress.is_training or not progress.activities:
        return progress.stalled_s
    return progress.activities[0].seconds


def _activities_text(progress: JobProgress) -> str:
    """Return what the workers do; empty if all are training, which the step says already."""
    activities = progress.activities
    if len(activities) == 1:
        return "" if progress.is_training and progress.step is not None else activities[0].text
    return ", ".join(f"{workers_text(activity)} {activity.text}" for activity in activities)


def workers_text(activity: Activity) -> str:
    """Return the names of the workers of an activity: ``workers 0 and 3``, ``40 workers``."""
    *others, last = activity.workers
    if len(others) >= MAX_NAMED:
        return f"{len(activity.workers):,} workers"
    if not others:
        return f"worker {last}"
    return f"workers {', '.join(map(str, others))} and {last}"
