"""The view of a job as plain lines, for logs and pipes."""

import sys
import time
from collections.abc import Mapping, Sequence
from typing import IO, Any, Final

from tenfold.launcher.display.worker_logs import is_noise
from tenfold.launcher.job.events import WorkerEvent
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
        if event.kind == "epoch" and worker == 0:
            for line in epoch_lines(event):
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


def epoch_lines(event: WorkerEvent) -> list[str]:
    """Return the lines that show an epoch event.

    The first is ``epoch 2/5: loss 0.1234, accuracy 0.9531; 418 records/s``, counting epochs from
    1 (events and metrics.jsonl count from 0). A line for each sentence of the event follows.
    """
    data = event.data
    figures = {"loss": data.get("loss"), **(data.get("metrics") or _numbers(data))}
    told = [f"{name} {value:.4g}" for name, value in figures.items() if value is not None]
    head = f"epoch {data['epoch'] + 1}" if isinstance(data.get("epoch"), int) else "epoch"
    if data.get("epochs"):
        head += f"/{data['epochs']}"
    rate = f"; {data['records_per_s']:,.0f} records/s" if "records_per_s" in data else ""
    return [f"{head}: {', '.join(told)}{rate}", *(f"  {said}" for said in data.get("said", []))]


def _numbers(data: Mapping[str, Any]) -> dict[str, float]:
    """Return the figures of an event that a user's own program reported without `metrics`."""
    hidden = ("epoch", "epochs", "records_per_s", "wait_share", "time", "step")
    return {
        name: value
        for name, value in data.items()
        if name not in hidden and isinstance(value, int | float) and not isinstance(value, bool)
    }


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
    loss = record.progress.get("loss")
    return f"{phase}, step {record.step}{total}" + (
        f", loss {loss:.4g}" if loss is not None else ""
    )
