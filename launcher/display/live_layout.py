"""The layout of the live view: two lines on the job, and a table of its workers. Pure."""

from collections.abc import Sequence
from typing import Final

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tenfold.data.units import format_duration, format_size
from tenfold.launcher.display.plain import of_total
from tenfold.launcher.display.progress.job_progress import ACTIVITIES, JobProgress, activity_of
from tenfold.launcher.job.worker_record import WorkerRecord

GAP: Final = 2  # columns between two parts of a line
MIN_BAR: Final = 10  # a shorter bar is left out
MIN_NAME: Final = 8
# A worker that has been in another phase than training for this long shows the time.
SHOW_TIME_S: Final = 1.0
# Columns of the table, the first to be left out on a narrow terminal last.
COLUMNS: Final = ("worker", "activity", "step", "records/s", "waiting", "memory")
NUMBERS: Final = frozenset(COLUMNS) - {"activity"}


def job_view(
    progress: JobProgress,
    records: Sequence[WorkerRecord],
    *,
    name: str,
    seconds: float,
    now: float,
    size: tuple[int, int],
    own_rates: bool,
) -> RenderableType:
    """Return the lines of a job, which fit on a terminal with at least one line to spare.

    Args:
      progress: how far the job is.
      records: one per worker.
      name: the name of the run.
      seconds: since the start of the job.
      now: seconds since 1970.
      size: (width, height) of the terminal, in columns and lines.
      own_rates: whether each worker reports a rate of its own, which the table shows.
    """
    width, height = size
    lines: list[RenderableType] = [
        headline(progress, name=name, seconds=seconds, width=width),
        figures_line(progress, width=width),
    ]
    rows = height - 2 - len(lines)  # of the others, one is the table's head
    if rows >= min(2, len(records)):
        lines.append(worker_table(records, now=now, rows=rows, width=width, own_rates=own_rates))
    return Group(*lines[: max(1, height - 1)])


def waiting_view(
    activity: str, *, name: str, seconds: float, width: int, elapsed: Sequence[str] = ()
) -> RenderableType:
    """Return the line of a job before its first step: what it does, and for how many seconds."""
    name, lasting = cut(name, width // 3), format_duration(seconds)
    shown = cut(activity, width - cell_len(name) - GAP - cell_len(lasting) - 1)
    return fit([f"{name}{' ' * GAP}{shown} {lasting}", *elapsed], width)


def headline(progress: JobProgress, *, name: str, seconds: float, width: int) -> RenderableType:
    """Return the name, the epoch, the bar and the times; before the first step, the activity."""
    elapsed = f"{format_duration(seconds)} so far"
    if progress.step is None:
        if not progress.activities:
            return fit([cut(name, width // 3), elapsed], width)
        doing, lasting = progress.activities[0].text, progress.activities[0].seconds
        return waiting_view(doing, name=name, seconds=lasting, width=width, elapsed=[elapsed])
    left, right = [], []
    if progress.epoch is not None:
        left.append(f"epoch {of_total(progress.epoch + 1, progress.epochs)}")
    if progress.total_steps:
        right.append(f"{progress.step / progress.total_steps:.0%}")
    else:
        right.append(f"step {progress.step:,}")
    if progress.remaining_s:
        right.append(f"{format_duration(progress.remaining_s)} left")
    right.append(elapsed)
    room = width - sum(cell_len(part) + GAP for part in (*left, *right)) - GAP
    short = cut(name, min(width // 3, room - MIN_BAR))
    room -= cell_len(short)
    if not progress.total_steps or room < MIN_BAR:
        return fit([cut(name, width // 3), *left, *right], width)
    bar = ProgressBar(total=progress.total_steps, completed=progress.step, width=room)
    grid = Table.grid(padding=(0, GAP))
    cells: list[RenderableType] = [Text(short, style="bold"), *left, bar, *right]
    for _ in cells:
        grid.add_column(no_wrap=True)
    grid.add_row(*cells)
    return grid


def cut(name: str, width: int) -> str:
    """Return the name, shortened to `width` columns, but to no less than MIN_NAME."""
    text = Text(name)
    text.truncate(max(MIN_NAME, width), overflow="ellipsis")
    return text.plain


def figures_line(progress: JobProgress, *, width: int) -> RenderableType:
    """Return the rate, the loss and the best value, as far as they are known."""
    parts = []
    if progress.size_text:
        parts.append(progress.size_text)
    if progress.records_per_s is not None:
        parts.append(f"{progress.records_per_s:,.0f} records/s")
    if progress.loss is not None:
        parts.append(f"loss {progress.loss:.4g}")
    if progress.best is not None:
        parts.append(progress.best.text())
    return fit(parts, width)


def fit(parts: Sequence[str], width: int) -> Text:
    """Return as many of the parts, from the first, as fit on one line; the first may be cut."""
    text = parts[0] if parts else ""
    for part in parts[1:]:
        if cell_len(text) + GAP + cell_len(part) > width:
            break
        text += " " * GAP + part
    line = Text(text, no_wrap=True, overflow="ellipsis")
    line.truncate(width, overflow="ellipsis")
    return line


def worker_table(
    records: Sequence[WorkerRecord], *, now: float, rows: int, width: int, own_rates: bool
) -> Table:
    """Return the table of the workers in at most `rows` rows, its head not counted.

    If there are more workers, those that need attention come first, and the last row counts the
    others.
    """
    shown = list(records)
    if len(shown) > rows:
        shown = sorted(sorted(shown, key=_attention)[: rows - 1], key=lambda record: record.index)
    cells = [make_row(record, now=now) for record in shown]
    indexes = {record.index for record in shown}
    hidden = [record for record in records if record.index not in indexes]
    names = [name for name in COLUMNS if own_rates or name != "records/s"]
    names = names[: _columns_that_fit(names, cells, width)]
    table = Table(box=None, padding=(0, GAP, 0, 0), header_style="dim")
    for name in names:
        table.add_column(name, justify="right" if name in NUMBERS else "left", no_wrap=True)
    for record, row in zip(shown, cells, strict=True):
        table.add_row(*(row[name] for name in names), style="dim" if record.ended else None)
    if hidden:
        others = {activity_of(record) for record in hidden}
        text = f"{len(hidden):,} more" + (f": {others.pop()}" if len(others) == 1 else "")
        table.add_row("…", text, style="dim")
    return table


def _columns_that_fit(names: Sequence[str], rows: Sequence[dict[str, str]], width: int) -> int:
    """Return how many of the columns, from the first, fit on a line; at least the first two."""
    used = 0
    for count, name in enumerate(names):
        used += GAP + max(len(name), *(len(row[name]) for row in rows), 0)
        if used > width and count >= 2:
            return count
    return len(names)


def _attention(record: WorkerRecord) -> tuple[bool, float, int]:
    """Return a key that sorts workers that failed first, then those that wait most for input."""
    is_fine = record.exit_code in (None, 0) and not record.lost and record.state not in ("T", "t")
    wait = record.progress.wait_share if record.progress else None
    return is_fine, -(wait or 0.0), record.index


def make_row(record: WorkerRecord, *, now: float) -> dict[str, str]:
    """Return a worker's cells by COLUMNS; a figure that it has not reported is an empty cell."""
    progress = record.progress
    return {
        "worker": str(record.index),
        "activity": _activity(record, now),
        "step": "" if record.step is None else of_total(record.step, record.total_steps),
        "records/s": _figure(progress.records_per_s if progress else None, "{:,.0f}"),
        "waiting": _figure(progress.wait_share if progress else None, "{:.0%}"),
        "memory": format_size(record.rss_bytes) if record.rss_bytes and not record.ended else "",
    }


def _activity(record: WorkerRecord, now: float) -> str:
    text = activity_of(record)
    seconds = now - record.phase_since if record.phase_since else 0.0
    is_timed = not record.ended and text != ACTIVITIES["training"] and seconds >= SHOW_TIME_S
    return f"{text} {format_duration(seconds)}" if is_timed else text


def _figure(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)
