"""The view of a job as plain lines, for logs and pipes."""

import sys
import time
from collections.abc import Sequence
from typing import IO, Final

from tenfold.launcher.display.worker_logs import is_noise
from tenfold.launcher.job.events import Epoch, WorkerEvent
from tenfold.launcher.job.worker_record import WorkerRecord

# Longer lines of a worker's output are cut on the screen; its log file holds them whole.
SHOWN_CHARS: Final = 2000

PLAIN_INTERVAL_S: Final = 10.0  # between two lines of progress


class PlainView:
    """Prints lines to a stream, standard error by default; a line of progress per interval."""

    def __init__(self, stream: IO[str] | None = None, *, show_tf_logs: bool = False) -> None:
        self._stream = stream or sys.stderr
        self._show_all = show_tf_logs
        self._next = time.monotonic() + PLAIN_INTERVAL_S

    def line(self, worker: int, line: str) -> None:
        """Show a line of a worker's output."""
        if self._show_all or not is_noise(line):
            self._print(f"[worker {worker}] {line[:SHOWN_CHARS]}")

    def event(self, worker: int, event: WorkerEvent) -> None:
        """Show the epochs of worker 0: all workers report the same figures."""
        if isinstance(event.message, Epoch) and worker == 0:
            for line in epoch_lines(event.message):
                self._print(f"[tenfold] {line}")

    def note(self, text: str) -> None:
        """Show a message of the supervisor."""
        self._print(f"[tenfold] {text}")

    def tick(self, records: Sequence[WorkerRecord]) -> None:
        """Print a line of progress when the interval is over."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + PLAIN_INTERVAL_S
            self._print(f"[tenfold] {progress_line(records)}")

    def close(self) -> None:
        """Flush the stream."""
        self._stream.flush()

    def _print(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


def epoch_lines(epoch: Epoch) -> list[str]:
    """Return the lines that show an epoch.

    The first is ``epoch 2/5: loss 0.1234, accuracy 0.9531; 418 records/s``, counting epochs from
    1 (events and metrics.jsonl count from 0). A line for each sentence of the epoch follows.
    """
    figures = {"loss": epoch.loss, **epoch.metrics}
    shown = [f"{name} {value:.4g}" for name, value in figures.items() if value is not None]
    head = "epoch" if epoch.epoch is None else f"epoch {epoch.epoch + 1}"
    if epoch.epochs:
        head += f"/{epoch.epochs}"
    rate = "" if epoch.records_per_s is None else f"; {epoch.records_per_s:,.0f} records/s"
    return [f"{head}: {', '.join(shown)}{rate}", *(f"  {text}" for text in epoch.sentences)]


def progress_line(records: Sequence[WorkerRecord]) -> str:
    """Return one line on the progress of all workers; one text if all have the same."""
    texts = [describe(record) for record in records]
    if len(set(texts)) == 1:
        return f"all {len(texts)} workers: {texts[0]}"
    return "; ".join(f"worker {index}: {text}" for index, text in enumerate(texts))


def describe(record: WorkerRecord) -> str:
    """Return a worker's phase, step and loss in a few words."""
    if record.ended:
        return f"ended ({'lost' if record.lost else record.exit_code})"
    phase = record.phase.replace("_", " ") or ("running" if record.pid else "starting")
    if record.step is None:
        return phase
    total = f"/{record.total_steps}" if record.total_steps else ""
    loss = record.progress.loss if record.progress else None
    return f"{phase}, step {record.step}{total}" + (
        f", loss {loss:.4g}" if loss is not None else ""
    )
