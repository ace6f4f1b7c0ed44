"""The live view of a job on a terminal: a table of the workers under their merged output."""

import time
from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tenfold.data.units import format_duration, format_size, plural
from tenfold.launcher.display.plain import SHOWN_CHARS, epoch_lines
from tenfold.launcher.display.worker_logs import is_noise
from tenfold.launcher.job.events import Epoch, Step, WorkerEvent
from tenfold.launcher.job.worker_record import WorkerRecord

REFRESH_S: Final = 0.25
COLOURS: Final = ("cyan", "magenta", "yellow", "blue", "green", "red")


class TableView:
    """Shows the phase, step, rate, waiting share and memory of each worker, four times a second.

    Args:
      console: the terminal to draw on; standard error by default.
      show_tf_logs: whether to show the log lines of TensorFlow's C++ code too.
    """

    def __init__(self, console: Console | None = None, *, show_tf_logs: bool = False) -> None:
        self._console = console or Console(stderr=True)
        self._show_all = show_tf_logs
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._next = 0.0
        self._began = time.monotonic()
        self._started = False

    def line(self, worker: int, line: str) -> None:
        """Show a line of a worker's output above the table."""
        if self._show_all or not is_noise(line):
            prefix = Text(f"[worker {worker}] ", style=COLOURS[worker % len(COLOURS)])
            self._console.print(prefix + Text(line[:SHOWN_CHARS]), soft_wrap=True)

    def event(self, worker: int, event: WorkerEvent) -> None:
        """Show the epochs of worker 0: all workers report the same figures."""
        if isinstance(event.message, Epoch) and worker == 0:
            head, *sentences = epoch_lines(event.message)
            self._console.print(Text(head, style="bold"), soft_wrap=True)
            for line in sentences:
                self._console.print(Text(line), soft_wrap=True)

    def note(self, text: str) -> None:
        """Show a message of the supervisor."""
        self._console.print(Text(f"[tenfold] {text}", style="bold"), soft_wrap=True)

    def tick(self, records: Sequence[WorkerRecord]) -> None:
        """Redraw the table if REFRESH_S is over."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + REFRESH_S
        if not self._started:
            self._started = True
            self._live.start()
        self._live.update(make_table(records, seconds=now - self._began), refresh=True)

    def close(self) -> None:
        """Remove the table from the terminal."""
        if self._started:
            self._live.stop()


def make_table(records: Sequence[WorkerRecord], *, seconds: float) -> Table:
    """Return the table of a job that started `seconds` ago."""
    table = Table(
        title=f"{plural(len(records), 'worker')}, {format_duration(seconds)}", title_justify="left"
    )
    table.add_column("worker", justify="right")
    table.add_column("phase", min_width=10)
    for name in ("step", "loss", "records/s", "waiting", "memory"):
        table.add_column(name, justify="right")
    for record in records:
        table.add_row(*make_row(record), style="dim" if record.ended else None)
    return table


def make_row(record: WorkerRecord) -> tuple[str, ...]:
    """Return a worker's cells; a figure that it has not reported is an empty cell."""
    step = record.progress or Step(0)
    total = f"/{record.total_steps}" if record.total_steps else ""
    return (
        str(record.index),
        _phase(record),
        f"{record.step}{total}" if record.step is not None else "",
        _figure(step.loss, "{:.4g}"),
        _figure(step.records_per_s, "{:,.0f}"),
        _figure(step.wait_share, "{:.0%}"),
        format_size(record.rss_bytes) if record.rss_bytes and not record.ended else "",
    )


def _phase(record: WorkerRecord) -> str:
    if record.lost:
        return "lost"
    if record.exit_code is not None:
        return "done" if record.exit_code == 0 else f"ended ({record.exit_code})"
    if record.state in ("T", "t"):
        return "stopped"
    return record.phase.replace("_", " ") or ("running" if record.pid else "starting")


def _figure(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)
