"""The view that keeps metrics.prom, the state of a job for Prometheus' textfile collector."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tenfold.data.errors import os_error_text
from tenfold.data.storage.local_folder import replace_file
from tenfold.launcher.display.history import HistoryView
from tenfold.launcher.display.prometheus.open_metrics import Gauge, open_metrics_text
from tenfold.launcher.job.events import Epoch, Started, WorkerEvent
from tenfold.launcher.job.history.goodput import Goodput
from tenfold.launcher.job.history.history_line import Resized
from tenfold.launcher.job.job_result import STATES
from tenfold.launcher.job.worker_record import WorkerRecord

RUNNING_STATE: Final = "running"
METRICS_INTERVAL_S: Final = 10.0  # Prometheus asks every 15 s or more rarely


class MetricsFileView:
    """A view that replaces a file of metrics every few seconds and passes every call on.

    A file that cannot be written is noted once; the job goes on.

    Args:
      view: the view that shows the job and writes its history.
      path: the file.
      run_dir: the run directory, the label ``run`` of every metric.
    """

    def __init__(self, view: HistoryView, path: Path, *, run_dir: str) -> None:
        self._view = view
        self._path = path
        self._run_dir = run_dir
        self._records: Sequence[WorkerRecord] = ()
        self._starts = 0
        self._epoch: Epoch | None = None
        self._next = 0.0
        self._is_silent = False

    def line(self, worker: int, line: str) -> None:
        """Pass a line of output on."""
        self._view.line(worker, line)

    def event(self, worker: int, event: WorkerEvent) -> None:
        """Take an event of a worker."""
        if worker == 0 and isinstance(event.message, Started):
            self._starts += 1
        if worker == 0 and isinstance(event.message, Epoch):
            self._epoch = event.message
        self._view.event(worker, event)

    def note(self, text: str) -> None:
        """Pass a message of the supervisor on."""
        self._view.note(text)

    def resized(self, change: Resized) -> None:
        """Pass a change of the hosts on."""
        self._view.resized(change)

    def wait(self, activity: str) -> None:
        """Pass on what the launcher waits for."""
        self._view.wait(activity)

    def tick(self, records: Sequence[WorkerRecord]) -> None:
        """Write the file when the interval is over."""
        self._records = records
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + METRICS_INTERVAL_S
            self._write(RUNNING_STATE, self._view.goodput(RUNNING_STATE))
        self._view.tick(records)

    def close(self) -> None:
        """Close the views behind this one."""
        # They take no more notes.
        self._is_silent = True
        self._view.close()

    def finish(self, state: str, seconds: float) -> Goodput | None:
        """Write the file for the last time; return the goodput of the job.

        Args:
          state: how the job ended.
          seconds: its wall time.
        """
        goodput = self._view.goodput(state, seconds)
        self._write(state, goodput)
        return goodput

    def _write(self, state: str, goodput: Goodput | None) -> None:
        gauges = job_gauges(
            self._records, state=state, goodput=goodput, starts=self._starts, epoch=self._epoch
        )
        text = open_metrics_text(gauges, labels={"run": self._run_dir})
        try:
            replace_file(self._path, text.encode())
        except OSError as error:
            if not self._is_silent:
                self._is_silent = True
                self.note(f"{self._path} is not kept up to date: {os_error_text(error)}")


def job_gauges(
    records: Sequence[WorkerRecord],
    *,
    state: str,
    goodput: Goodput | None,
    starts: int,
    epoch: Epoch | None,
) -> list[Gauge]:
    """Return the metrics of a job. Pure.

    Args:
      records: the workers of the present attempt.
      state: ``running`` or one of STATES.
      goodput: what the time was spent on, None if that is not known.
      starts: how often worker 0 was started.
      epoch: the last finished epoch, None before it.
    """
    progress = records[0].progress if records else None
    step, total_steps, loss, records_per_s = (
        (progress.step, progress.total_steps, progress.loss, progress.records_per_s)
        if progress
        else (None, None, None, None)
    )
    figures: dict[str, float] = {}
    if epoch is not None:
        figures = (
            {"loss": epoch.loss, **epoch.metrics}
            if epoch.loss is not None
            else dict(epoch.metrics)
        )
    return [
        Gauge(
            "tenfold_job_state", "1 for the state of the job, 0 for the others.",
            tuple(({"state": each}, float(each == state)) for each in (RUNNING_STATE, *STATES)),
        ),
        _one("tenfold_job_workers", "Workers of the job.", len(records) or None),
        _one("tenfold_job_restarts", "Restarts of all workers so far.", max(0, starts - 1)),
        _one("tenfold_job_step", "Steps done since the run began.", step),
        _one(
            "tenfold_job_steps", "Steps of the whole run.", total_steps
        ),
        _one("tenfold_job_step_loss", "Loss of the last step.", loss),
        _one(
            "tenfold_job_records_per_second", "Records that all workers together read per second.",
            records_per_s,
        ),
        _one(
            "tenfold_job_epochs_done", "Finished epochs.",
            None if epoch is None or epoch.epoch is None else epoch.epoch + 1,
        ),
        Gauge(
            "tenfold_job_epoch_metric", "Loss and metrics of the last finished epoch.",
            tuple(({"metric": name}, value) for name, value in figures.items()),
        ),
        *_goodput_gauges(goodput),
        Gauge(
            "tenfold_worker_resident_memory_bytes", "Resident memory of a worker.",
            tuple(({"worker": str(r.index)}, r.rss_bytes) for r in records if r.rss_bytes),
        ),
    ]  # fmt: skip


def _goodput_gauges(goodput: Goodput | None) -> list[Gauge]:
    if goodput is None:
        return []
    return [
        _one(
            "tenfold_job_goodput_ratio", "Share of the wall time in steps that were kept, 0 to 1.",
            goodput.share,
        ),
        Gauge(
            "tenfold_job_time_seconds", "Wall time of this launch by what it was spent on.",
            tuple(({"kind": kind}, value) for kind, value in goodput.parts.items()),
        ),
        Gauge(
            "tenfold_worker_before_exchange_seconds",
            "Time of a step before the exchange of gradients, by worker.",
            tuple(
                ({"worker": str(index)}, value)
                for index, value in enumerate(goodput.before_exchange_s)
            ),
        ),
    ]  # fmt: skip


def _one(name: str, text: str, value: float | None) -> Gauge:
    return Gauge(name, text, () if value is None else (({}, float(value)),))
