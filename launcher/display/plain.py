"""The view of a job as plain lines."""

import sys
import time
from collections.abc import Sequence
from typing import IO, Final

from tenfold.launcher.display.worker_logs import is_noise
from tenfold.launcher.job.events import Epoch, WorkerEvent
from tenfold.launcher.job.worker_record import WorkerRecord

SHOWN_CHARS: Final = 2000  # of a line; the log has all of it

PLAIN_INTERVAL_S: Final = 10.0


class PlainView:
    """Lines on a stream, one of progress per interval."""

    def __init__(self, stream: IO[str] | None = None, *, show_tf_logs: bool = False) -> None:
        self._stream = stream or sys.stderr
        self._show_all = show_tf_logs
        self._next = time.monotonic() + PLAIN_INTERVAL_S

    def line(self, worker: int, line: str) -> None:
        """Shows a line of a worker's output."""
        if self._show_all or not is_noise(line):
            self._print(f"[worker {worker}] {line[:SHOWN_CHARS]}")

    def event(self, worker: int, event: WorkerEvent) -> None:
        """Shows epochs, once."""
        if isinstance(event.message, Epoch) and worker == 0:
            for line in epoch_lines(event.message):
                self._print(f"[tenfold] {line}")

    def note(self, text: str) -> None:
        """Shows what the supervisor has to say."""
        self._print(f"[tenfold] {text}")

    def tick(self, records: Sequence[WorkerRecord]) -> None:
        """Prints a line of progress when one is due."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + PLAIN_INTERVAL_S
            self._print(f"[tenfold] {progress_line(records)}")

    def close(self) -> None:
        """Flushes."""
        self._stream.flush()

    def _print(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


def epoch_lines(epoch: Epoch) -> list[str]:
    """Return ``epoch 2/5: loss 0.1234, accuracy 0.9531; 418 records/s``, then its sentences.

    People count epochs from 1; events and metrics.jsonl count from 0.
    """
    figures = {"loss": epoch.loss, **epoch.metrics}
    shown = [f"{name} {value:.4g}" for name, value in figures.items() if value is not None]
    head = "epoch" if epoch.epoch is None else f"epoch {epoch.epoch + 1}"
    if epoch.epochs:
        head += f"/{epoch.epochs}"
    rate = "" if epoch.records_per_s is None else f"; {epoch.records_per_s:,.0f} records/s"
    return [f"{head}: {', '.join(shown)}{rate}", *(f"  {text}" for text in epoch.sentences)]


def progress_line(records: Sequence[WorkerRecord]) -> str:
    """Returns one line on all workers: alike ones are told once."""
    told = [describe(record) for record in records]
    if len(set(told)) == 1:
        return f"all {len(told)} workers: {told[0]}"
    return "; ".join(f"worker {index}: {text}" for index, text in enumerate(told))


def describe(record: WorkerRecord) -> str:
    """Returns a worker's phase and step in a few words."""
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
