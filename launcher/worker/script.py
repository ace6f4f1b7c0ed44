"""What a program of the user's own can ask and tell under `tenfold launch`.

    worker = tenfold.worker()
    for step in range(1000):
        loss = train_step()
        worker.report(step=step, total_steps=1000, loss=loss)

Outside of a launch it is worker 0 of 1, and reports go nowhere. The same can be read from the
environment: TF_CONFIG, TENFOLD_WORKER_INDEX, TENFOLD_NUM_WORKERS, TENFOLD_RUN_DIR and
TENFOLD_RESTART (how often the job was started again).
"""

import io
import os
import sys
import threading
import time
import traceback
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from tenfold.launcher.job.events import PHASES, EventWriter
from tenfold.launcher.job.faults import WorkerFaults

REPORT_INTERVAL_S: Final = 0.1


class Worker:
    """This process's place in the job.

    `index` is the task index (0 is the chief), `run_dir` the job's run directory, where
    checkpoints belong (a text where it is a URL: ``gs://…``), `restart` how often all workers
    were started again before.
    """

    def __init__(self) -> None:
        environ = os.environ
        self.launched = "TENFOLD_WORKER_INDEX" in environ
        self.index = int(environ.get("TENFOLD_WORKER_INDEX", "0"))
        self.num_workers = int(environ.get("TENFOLD_NUM_WORKERS", "1"))
        where = environ.get("TENFOLD_RUN_DIR", ".")
        self.run_dir: Path | str = where if "://" in where else Path(where)
        self.restart = int(environ.get("TENFOLD_RESTART", "0"))
        # Events have a stream of their own: they do not wait in the buffer of prints.
        stream = os.fdopen(os.dup(1), "w", encoding="utf-8") if self.launched else io.StringIO()
        self._events = EventWriter(stream, self.index)
        self._faults = WorkerFaults(environ)
        self._lock = threading.Lock()
        self._next_report = 0.0
        if self.launched:
            sys.excepthook = self._die

    @property
    def is_chief(self) -> bool:
        """Whether this is worker 0, which alone should write checkpoints' final copies."""
        return self.index == 0

    def report(
        self,
        *,
        step: int,
        total_steps: int | None = None,
        loss: float | None = None,
        **figures: Any,
    ) -> None:
        """Says how far training is; for the progress display and the watchdog.

        Cheap: at most ten reports a second are passed on. `step` counts over the whole job;
        `figures` must be what JSON can hold (numbers, texts).
        """
        with self._lock:
            now = time.monotonic()
            is_last = total_steps is not None and step >= total_steps
            is_told = self.launched and (now >= self._next_report or is_last)
            if is_told:
                self._next_report = now + REPORT_INTERVAL_S
                told = {"step": int(step), "total_steps": total_steps, **figures}
                if loss is not None:
                    told["loss"] = float(loss)
                self._events.send("step", **told)
        self._faults.at_step(int(step))
        if is_told:
            self._faults.after_telling(int(step))

    def phase(self, name: str) -> None:
        """Says that a phase begins, one of ``import``, ``rendezvous``, ``build``,
        ``first_step``, ``training``, ``evaluation``, ``checkpoint``, ``saving`` and ``done``:
        the watchdog has a patience of its own for each. A program that tells phases must
        end with ``done``.

        Raises:
          ValueError: there is no such phase.
        """
        if name not in PHASES:
            raise ValueError(f"phase '{name}' is none of {', '.join(PHASES)}")
        if self.launched:
            with self._lock:
                self._events.enter(name)

    def _die(
        self, kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        """Tells of an exception that nobody caught, and ends at once: TensorFlow's teardown
        would wait for the peers, who wait for this worker.
        """
        text = "".join(traceback.format_exception(kind, error, trace))
        sys.stderr.write(text)
        if not issubclass(kind, KeyboardInterrupt):
            self._events.send("error", type=kind.__name__, message=str(error), traceback=text)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(1)


@cache
def worker() -> Worker:
    """Returns this process's place in the job; always the same object."""
    return Worker()
