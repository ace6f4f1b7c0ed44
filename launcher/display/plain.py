"""The view of a job as plain lines."""

import sys
import time
from collections.abc import Mapping, Sequence
from typing import IO, Any, Final

from tenfold.launcher.display.worker_logs import is_noise
from tenfold.launcher.job.events import WorkerEvent
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
        """Show a line of a worker's output."""
        if self._show_all or not is_noise(line):
            self._print(f"[worker {worker}] {line[:SHOWN_CHARS]}")

    def event(self, worker: int, event: WorkerEvent) -> None:
        """Show epochs, once."""
        if event.kind == "epoch" and worker == 0:
            for line in epoch_lines(event):
                self._print(f"[tenfold] {line}")

    def note(self, text: str) -> None:
        """Show what the supervisor has to say."""
        self._print(f"[tenfold] {text}")

    def tick(self, records: Sequence[WorkerRecord]) -> None:
        """Print a line of progress when one is due."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + PLAIN_INTERVAL_S
            self._print(f"[tenfold] {progress_line(records)}")

    def close(self) -> None:
        """Flush."""
        self._stream.flush()

    def _print(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


def epoch_lines(event: WorkerEvent) -> list[str]:
    """Return ``epoch 2/5: loss 0.1234, accuracy 0.9531; 418 records/s`` of an epoch event,
    and a line for each sentence that comes with it.

    People count epochs from 1; the events and metrics.jsonl from 0.
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
    """The figures that a user's own program has told, without metrics set apart."""
    hidden = ("epoch", "epochs", "records_per_s", "wait_share", "time", "step")
    return {
        name: value
        for name, value in data.items()
        if name not in hidden and isinstance(value, int | float) and not isinstance(value, bool)
    }


def progress_line(records: Sequence[WorkerRecord]) -> str:
    """Return one line on all workers: alike ones are told once."""
    told = [describe(record) for record in records]
    if len(set(told)) == 1:
        return f"all {len(told)} workers: {told[0]}"
    return "; ".join(f"worker {index}: {text}" for index, text in enumerate(told))


def describe(record: WorkerRecord) -> str:
    """Return a worker's phase and step in a few words."""
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
