"""`tenfold.worker()`: a user's own program under `tenfold launch` learns its place and reports.

    worker = tenfold.worker()
    for step in range(1000):
        loss = train_step()
        worker.report(step=step, total_steps=1000, loss=loss)

Outside of a launch, reports are dropped; TF_CONFIG, mpirun, srun or the platform give the place,
else the program is worker 0 of 1. Under a launch the environment holds the same facts: TF_CONFIG,
TENFOLD_WORKER_INDEX, TENFOLD_NUM_WORKERS, TENFOLD_RUN_DIR and TENFOLD_RESTART (the number of
restarts before this start).
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

from tenfold.data.planning.cluster_task import find_task
from tenfold.data.planning.worker_variables import INDEX_VARIABLE
from tenfold.launcher.job.events import PHASES, Error, EventWriter, Step
from tenfold.launcher.job.faults import WorkerFaults

REPORT_INTERVAL_S: Final = 0.1


class Worker:
    """The place of this process in the job.

    Attributes:
      index: the task index; worker 0 is the chief.
      num_workers: the number of workers.
      run_dir: the job's run directory, where checkpoints belong; a text where it is a URL
        (``gs://…``).
      restart: how often all workers were restarted before.
      launched: whether `tenfold launch` started this process.
    """

    def __init__(self) -> None:
        environ = os.environ
        self.launched = INDEX_VARIABLE in environ
        task = find_task(environ)
        self.index, self.num_workers = task.place if task else (0, 1)
        where = environ.get("TENFOLD_RUN_DIR", ".")
        self.run_dir: Path | str = where if "://" in where else Path(where)
        self.restart = int(environ.get("TENFOLD_RESTART", "0"))
        # A stream of their own: events do not wait in the buffer of prints.
        stream = os.fdopen(os.dup(1), "w", encoding="utf-8") if self.launched else io.StringIO()
        self._events = EventWriter(stream, self.index)
        self._faults = WorkerFaults(environ)
        # Protects `_events` and `_next_report`: a program may report from several threads.
        self._lock = threading.Lock()
        self._next_report = 0.0
        if self.launched:
            sys.excepthook = self._exit_with_error

    @property
    def is_chief(self) -> bool:
        """Whether this is worker 0, which alone should write the final copy of checkpoints."""
        return self.index == 0

    def report(
        self,
        *,
        step: int,
        total_steps: int | None = None,
        loss: float | None = None,
        **figures: Any,
    ) -> None:
        """Report progress, for the display and the watchdog.

        Cheap: at most ten reports per second are sent.

        Args:
          step: counted over the whole job, restarts included.
          total_steps: the steps of the whole job; the report of the last one is always sent.
          loss: the current loss.
          **figures: `epoch` (from 0), `records_per_s`, and the shares of time (0 to 1) that the
            last steps waited for input, `wait_share`, and exchanged gradients, `exchange_share`,
            are shown; other names are ignored.
        """
        with self._lock:
            now = time.monotonic()
            is_last = total_steps is not None and step >= total_steps
            is_sent = self.launched and (now >= self._next_report or is_last)
            if is_sent:
                self._next_report = now + REPORT_INTERVAL_S
                self._events.send(_step_message(step, total_steps, loss, figures))
        self._faults.strike(int(step))
        if is_sent:
            self._faults.block_until_killed(int(step))

    def phase(self, name: str) -> None:
        """Report that a phase begins.

        The watchdog has a time limit for each phase. A program that reports phases must end
        with ``done``.

        Args:
          name: ``import``, ``rendezvous``, ``build``, ``first_step``, ``training``,
            ``evaluation``, ``checkpoint``, ``saving`` or ``done``.

        Raises:
          ValueError: there is no such phase.
        """
        if name not in PHASES:
            raise ValueError(f"phase '{name}' is none of {', '.join(PHASES)}")
        if self.launched:
            with self._lock:
                self._events.enter(name)

    def _exit_with_error(
        self, kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        """Report an uncaught exception and end at once.

        TensorFlow's teardown would wait for the peers, which wait for this worker.
        """
        text = "".join(traceback.format_exception(kind, error, trace))
        sys.stderr.write(text)
        if not issubclass(kind, KeyboardInterrupt):
            self._events.send(Error(kind.__name__, str(error), text))
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(1)


def _step_message(
    step: int, total_steps: int | None, loss: float | None, figures: dict[str, Any]
) -> Step:
    epoch = figures.get("epoch")
    return Step(
        step=int(step),
        epoch=None if epoch is None else int(epoch),
        total_steps=None if total_steps is None else int(total_steps),
        loss=None if loss is None else float(loss),
        records_per_s=_float_or_none(figures.get("records_per_s")),
        wait_share=_float_or_none(figures.get("wait_share")),
        exchange_share=_float_or_none(figures.get("exchange_share")),
    )


def _float_or_none(value: Any) -> float | None:
    return None if value is None else float(value)


@cache
def worker() -> Worker:
    """Return the place of this process in the job; always the same object."""
    return Worker()
