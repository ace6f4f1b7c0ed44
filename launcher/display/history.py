"""history.jsonl: what happened when on which worker, as the supervisor heard it.

One JSON object a line, each with `time` (seconds since 1970, the supervisor's clock) and
`kind`:

- launch: a launch begins in this run directory; num_workers, hosts
- started, exit, phase, error, checkpoint, preempted: as in `launcher.events`, with `worker`
  and `phase`; an exit has peak_rss_bytes too
- step: step, epoch, total_steps, loss, records_per_s, and waited_s: how long the worker waited
  for input since its last such line; at most one a second and worker
- note: what the supervisor did, in words
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

_KEPT: Final = ("started", "exit", "phase", "error", "checkpoint", "preempted", "resumed")

_STEP_FIELDS: Final = ("step", "epoch", "total_steps", "loss", "records_per_s")


class HistoryView:
    """A view that writes down what another view shows."""

    def __init__(self, view: View, path: Path, *, hosts: Sequence[str]) -> None:
        self._view = view
        self._file = path.open("a", encoding="utf-8", buffering=1)
        self._steps = StepLines()
        self._peaks: dict[int, int] = defaultdict(int)
        self._write("launch", num_workers=len(hosts), hosts=list(hosts))

    def line(self, worker: int, line: str) -> None:
        """Pass a line of output on; the logs hold it."""
        self._view.line(worker, line)

    def event(self, worker: int, event: WorkerEvent) -> None:
        """Write down what a worker said."""
        if isinstance(event.data, dict):  # a worker's output is its own: it may be damaged
            if event.kind == "step":
                self._write_step(worker, self._steps.take(worker, event.data, time.time()))
            elif event.kind in _KEPT:
                self._write_step(worker, self._steps.finish(worker, time.time()))
                self._write_event(worker, event)
        self._view.event(worker, event)

    def note(self, text: str) -> None:
        """Write down what the supervisor has to say."""
        self._write("note", text=text)
        self._view.note(text)

    def tick(self, records: Sequence[WorkerRecord]) -> None:
        """Remembers how much memory the workers take."""
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
        # A worker's own fields never stand in for ours.
        self._write(**{**data, "kind": event.kind, "worker": worker, "phase": event.phase})

    def _write(self, kind: str, **fields: Any) -> None:
        line = {"time": round(time.time(), 3), **fields, "kind": kind}
        self._file.write(json.dumps(line, ensure_ascii=False) + "\n")


class StepLines:
    """Thins steps out to one a second and worker, the waiting for input summed up."""

    def __init__(self) -> None:
        self._heard: dict[int, float] = {}
        self._told: dict[int, float] = defaultdict(float)
        self._waited_s: dict[int, float] = defaultdict(float)
        self._pending: dict[int, dict[str, Any]] = {}

    def take(self, worker: int, data: dict[str, Any], now: float) -> dict[str, Any]:
        """Take a step; returns the fields of a line, none where it is too early for one."""
        share = data.get("wait_share")
        if isinstance(share, int | float):
            self._waited_s[worker] += share * (now - self._heard.get(worker, now))
        self._heard[worker] = now
        self._pending[worker] = {name: data[name] for name in _STEP_FIELDS if name in data}
        return self._line(worker, now) if now - self._told[worker] >= STEP_INTERVAL_S else {}

    def finish(self, worker: int, now: float) -> dict[str, Any]:
        """Return the fields of the last step where no line told it: something else begins."""
        fields = self._line(worker, now) if worker in self._pending else {}
        self._heard[worker] = now  # what lies before now is not the next step's time
        return fields

    def _line(self, worker: int, now: float) -> dict[str, Any]:
        self._told[worker] = now
        waited_s = round(self._waited_s.pop(worker, 0.0), 4)
        return {**self._pending.pop(worker), "waited_s": waited_s}
