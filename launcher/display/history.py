"""history.jsonl: the events of all workers and the actions of the supervisor, in time order.

One JSON object per line, each with `time` (seconds since 1970 by the supervisor's clock) and
`kind`:

- launch: a launch begins in this run directory; num_workers, hosts
- started, exit, phase, error, checkpoint, preempted, resumed: as in `launcher.job.events`, with
  `worker` and `phase`; an exit also has peak_rss_bytes
- step: step, epoch, total_steps, loss, records_per_s, and waited_s, the seconds that the worker
  waited for input since its last line of this kind; at most one line per second and worker
- note: a message of the supervisor
"""

import json
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tenfold.launcher.display.view import View
from tenfold.launcher.job.events import WorkerEvent
from tenfold.launcher.job.worker_record import WorkerRecord

STEP_INTERVAL_S: Final = 1.0

# Kinds of events that are written down; steps are thinned, the worker's own log has the rest.
_KEPT: Final = ("started", "exit", "phase", "error", "checkpoint", "preempted", "resumed")

_STEP_FIELDS: Final = ("step", "epoch", "total_steps", "loss", "records_per_s")


class HistoryView:
    """A view that appends to history.jsonl and passes every call on to another view.

    Args:
      view: the view that shows the job.
      path: the file to append to.
      hosts: the host of each worker.
    """

    def __init__(self, view: View, path: Path, *, hosts: Sequence[str]) -> None:
        self._view = view
        self._file = path.open("a", encoding="utf-8", buffering=1)
        self._steps = StepLines()
        self._peaks: dict[int, int] = defaultdict(int)
        self._write("launch", num_workers=len(hosts), hosts=list(hosts))

    def line(self, worker: int, line: str) -> None:
        """Pass a line of output on; the workers' log files hold it."""
        self._view.line(worker, line)

    def event(self, worker: int, event: WorkerEvent) -> None:
        """Write an event down."""
        if isinstance(event.data, dict):  # a user's program may report anything
            if event.kind == "step":
                self._write_step(worker, self._steps.take(worker, event.data, time.time()))
            elif event.kind in _KEPT:
                self._write_step(worker, self._steps.finish(worker, time.time()))
                self._write_event(worker, event)
        self._view.event(worker, event)

    def note(self, text: str) -> None:
        """Write a message of the supervisor down."""
        self._write("note", text=text)
        self._view.note(text)

    def tick(self, records: Sequence[WorkerRecord]) -> None:
        """Record the peak memory of each worker."""
        for record in records:
            self._peaks[record.index] = max(self._peaks[record.index], record.rss_bytes)
        self._view.tick(records)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        self._view.close()

    def _write_step(self, worker: int, fields: dict[str, Any]) -> None:
        if fields:
            self._write(**{**fields, "kind": "step", "worker": worker})

    def _write_event(self, worker: int, event: WorkerEvent) -> None:
        data = dict(event.data)
        if event.kind == "exit":
            data["peak_rss_bytes"] = self._peaks.pop(worker, 0)
        # Ours come last: fields of a worker's event cannot replace them.
        self._write(**{**data, "kind": event.kind, "worker": worker, "phase": event.phase})

    def _write(self, kind: str, **fields: Any) -> None:
        line = {"time": round(time.time(), 3), **fields, "kind": kind}
        self._file.write(json.dumps(line, ensure_ascii=False) + "\n")


class StepLines:
    """Thins step events to one per second and worker, summing the time of waiting for input."""

    def __init__(self) -> None:
        self._heard: dict[int, float] = {}
        self._told: dict[int, float] = defaultdict(float)
        self._waited_s: dict[int, float] = defaultdict(float)
        self._pending: dict[int, dict[str, Any]] = {}

    def take(self, worker: int, data: dict[str, Any], now: float) -> dict[str, Any]:
        """Add a step event; return the fields of a line, or {} if a line is not due yet.

        Args:
          worker: index of the worker.
          data: the fields of the event.
          now: seconds since 1970.
        """
        share = data.get("wait_share")
        if isinstance(share, int | float):
            self._waited_s[worker] += share * (now - self._heard.get(worker, now))
        self._heard[worker] = now
        self._pending[worker] = {name: data[name] for name in _STEP_FIELDS if name in data}
        return self._line(worker, now) if now - self._told[worker] >= STEP_INTERVAL_S else {}

    def finish(self, worker: int, now: float) -> dict[str, Any]:
        """Return the fields of the last step if no line holds it yet, because a phase ends."""
        fields = self._line(worker, now) if worker in self._pending else {}
        self._heard[worker] = now  # time before now does not belong to the next step
        return fields

    def _line(self, worker: int, now: float) -> dict[str, Any]:
        self._told[worker] = now
        waited_s = round(self._waited_s.pop(worker, 0.0), 4)
        return {**self._pending.pop(worker), "waited_s": waited_s}
