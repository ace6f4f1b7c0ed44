"""The live view of a job on a terminal: its progress and workers under their merged output."""

import time
from collections.abc import Sequence
from typing import Final

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from tenfold.launcher.display.live_layout import job_view, waiting_view
from tenfold.launcher.display.plain import SHOWN_CHARS
from tenfold.launcher.display.progress.epoch_lines import EpochLines
from tenfold.launcher.display.progress.job_progress import ProgressTracker
from tenfold.launcher.display.worker_logs import is_noise
from tenfold.launcher.job.events import Epoch, WorkerEvent
from tenfold.launcher.job.history.history_line import Resized
from tenfold.launcher.job.worker_record import WorkerRecord

REFRESH_S: Final = 0.25
COLOURS: Final = ("cyan", "magenta", "yellow", "blue", "green", "red")


class TableView:
    """Shows the job's progress and a row per worker, redrawn four times a second.

    Everything is drawn by the calls of the supervisor's main thread; there is no thread here.

    Args:
      console: the terminal to draw on; standard error by default.
      tracker: follows the progress of the job.
      show_tf_logs: whether to show the log lines of TensorFlow's C++ code too.
    """

    def __init__(
        self,
        console: Console | None = None,
        *,
        tracker: ProgressTracker | None = None,
        show_tf_logs: bool = False,
    ) -> None:
        self._console = console or Console(stderr=True)
        self._tracker = tracker or ProgressTracker()
        self._show_all = show_tf_logs
        self._live = Live(
            console=self._console, auto_refresh=False, transient=True, vertical_overflow="crop"
        )
        self._epochs = EpochLines()
        self._next = 0.0
        self._began = time.monotonic()
        self._waiting = ""  # the activity of `wait`, and since when
        self._waiting_since = 0.0
        self._started = False

    def line(self, worker: int, line: str) -> None:
        """Show a line of a worker's output above the table."""
        if self._show_all or not is_noise(line):
            prefix = Text(f"[worker {worker}] ", style=COLOURS[worker % len(COLOURS)])
            self._console.print(prefix + Text(line[:SHOWN_CHARS]), soft_wrap=True)

    def event(self, worker: int, event: WorkerEvent) -> None:
        """Show the epochs of worker 0: all workers report the same figures."""
        if isinstance(event.message, Epoch) and worker == 0:
            self._tracker.take_epoch(event.message)
            head, *sentences = self._epochs.lines(event.message)
            self._console.print(Text(head, style="bold"))
            for line in sentences:
                self._console.print(Text(line))

    def note(self, text: str) -> None:
        """Show a message of the supervisor."""
        self._console.print(Text(f"[tenfold] {text}", style="bold"), soft_wrap=True)

    def resized(self, change: Resized) -> None:
        """Show that the workers are going to start on other hosts."""
        self._tracker.take_resize(change.before)
        self.note(change.text)

    def wait(self, activity: str) -> None:
        """Show the activity with a timer, in place of the table."""
        now = time.monotonic()
        if activity != self._waiting:
            self._waiting, self._waiting_since = activity, now
        if self._is_due(now):
            seconds = now - self._waiting_since
            width = self._console.width
            name = self._tracker.name
            self._draw(waiting_view(activity, name=name, seconds=seconds, width=width))

    def tick(self, records: Sequence[WorkerRecord]) -> None:
        """Redraw the view if REFRESH_S is over."""
        now = time.monotonic()
        if not self._is_due(now):
            return
        clock = time.time()
        view = job_view(
            self._tracker.progress(records, clock),
            records,
            name=self._tracker.name,
            seconds=now - self._began,
            now=clock,
            size=(self._console.width, self._console.height),
            own_rates=not self._tracker.rate_is_total,
        )
        self._draw(view)

    def close(self) -> None:
        """Remove the table from the terminal."""
        if self._started:
            self._live.stop()

    def _is_due(self, now: float) -> bool:
        if now < self._next:
            return False
        self._next = now + REFRESH_S
        return True

    def _draw(self, view: RenderableType) -> None:
        if not self._started:
            self._started = True
            self._live.start()
        self._live.update(view, refresh=True)
