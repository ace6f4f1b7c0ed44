"""The progress of a job, computed from the records of its workers and its epochs.

Both views show it: the live table and the plain lines. No clock and no stream is read here.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Final

from tenfold.launcher.display.progress.best_value import BestValue, best_value
from tenfold.launcher.job.events import Epoch
from tenfold.launcher.job.job_spec import JobSpec
from tenfold.launcher.job.worker_record import WorkerRecord

# The shown rate is the mean of the rates reported within this time.
RATE_WINDOW_S: Final = 5.0

# What a worker does in each phase of `launcher.job.events`.
ACTIVITIES: Final = {
    "import": "importing TensorFlow",
    "rendezvous": "waiting for all workers",
    "build": "building the model",
    "first_step": "compiling the first step",
    "training": "training",
    "evaluation": "evaluating",
    "checkpoint": "saving a checkpoint",
    "diagnosis": "looking for the first value that is not finite",
    "saving": "saving the model",
    "done": "ending",
}
ORDER: Final = tuple(ACTIVITIES)


@dataclass(frozen=True)
class Activity:
    """What some workers do, and for how many seconds; `workers` holds their indexes."""

    text: str
    seconds: float
    workers: tuple[int, ...]


@dataclass(frozen=True)
class JobProgress:
    """How far a job is. A figure that no worker has reported is None.

    Attributes:
      activities: what the workers do, the least advanced first.
      epoch: the current epoch, counted from 0.
      epochs: the epochs of the whole job.
      step: the last step that every running worker has reported.
      total_steps: the steps of the whole job.
      loss: the loss of that step.
      records_per_s: records that all workers together read per second.
      remaining_s: the estimated time until the last step.
      stalled_s: seconds since the last step.
      best: the best value so far.
      num_workers: the number of workers that run now.
      all_workers: the most workers that the job had in one of its starts.
    """

    activities: tuple[Activity, ...] = ()
    epoch: int | None = None
    epochs: int | None = None
    step: int | None = None
    total_steps: int | None = None
    loss: float | None = None
    records_per_s: float | None = None
    remaining_s: float | None = None
    stalled_s: float = 0.0
    best: BestValue | None = None
    num_workers: int = 0
    all_workers: int = 0

    @property
    def size_text(self) -> str:
        """``3 of 4 workers`` while the job runs with fewer workers than before, else empty."""
        if self.num_workers >= self.all_workers:
            return ""
        return f"{self.num_workers:,} of {self.all_workers:,} workers"

    @property
    def is_training(self) -> bool:
        """Whether all workers that have not ended are training."""
        return bool(self.activities) and self.activities[0].text == ACTIVITIES["training"]


@dataclass
class ProgressTracker:
    """Follows a job.

    Attributes:
      name: the name of the run.
      epochs: the epochs of the whole job, None until it is known.
      rate_is_total: whether a worker reports the rate of the whole job, as the built-in trainer
        does, or its own.
      all_workers: the most workers that the job had in one of its starts.
    """

    name: str = ""
    epochs: int | None = None
    rate_is_total: bool = False
    all_workers: int = 0
    _finished: dict[int, dict[str, float]] = field(default_factory=dict)
    _best: BestValue | None = None
    _rates: deque[tuple[float, float]] = field(default_factory=deque)
    _first: tuple[float, int] | None = None  # time and number of the attempt's first step
    _last: tuple[float, int] = 0.0, -1
    _record: WorkerRecord | None = None  # the attempt's first

    def take_epoch(self, epoch: Epoch) -> None:
        """Take a finished epoch."""
        self.epochs = epoch.epochs or self.epochs
        if epoch.epoch is not None:
            self._finished[epoch.epoch] = epoch_figures(epoch)
            self._best = best_value(self._finished.items())

    def take_resize(self, before: int) -> None:
        """Take the number of workers that the job has had before it started on other hosts."""
        self.all_workers = max(self.all_workers, before)

    def progress(self, records: Sequence[WorkerRecord], now: float) -> JobProgress:
        """Return the progress of a job.

        Args:
          records: one of each worker of the attempt; a new attempt has new records.
          now: seconds since 1970.
        """
        if records and self._record is not records[0]:
            self._record, self._first = records[0], None
            self._rates.clear()
        self.all_workers = max(self.all_workers, len(records))
        running = [record for record in records if not record.ended] or list(records)
        reported = [record for record in running if record.step is not None]
        behind = min(reported, key=lambda record: record.step or 0, default=None)
        activities = group_activities(records, now)
        if behind is None or behind.step is None:
            return JobProgress(
                activities,
                epochs=self.epochs,
                best=self._best,
                num_workers=len(records),
                all_workers=self.all_workers,
            )
        self._note_step(behind.step, now)
        progress = behind.progress
        return JobProgress(
            activities,
            epoch=progress.epoch if progress else None,
            epochs=self.epochs,
            step=behind.step,
            total_steps=behind.total_steps,
            loss=progress.loss if progress else None,
            records_per_s=self._rate(running, now),
            remaining_s=self._remaining_s(behind.total_steps),
            stalled_s=now - self._last[0],
            best=self._best,
            num_workers=len(records),
            all_workers=self.all_workers,
        )

    def _note_step(self, step: int, now: float) -> None:
        if self._first is None:
            self._first = self._last = now, step
        elif step != self._last[1]:
            self._last = now, step

    def _remaining_s(self, total_steps: int | None) -> float | None:
        """Return the time until the last step at the mean pace since the attempt's first report.

        The pace includes evaluations and checkpoints, but not compiling, which ends before the
        first report.
        """
        assert self._first is not None
        steps = self._last[1] - self._first[1]
        if total_steps is None or steps <= 0:
            return None
        return (self._last[0] - self._first[0]) / steps * max(0, total_steps - self._last[1])

    def _rate(self, running: Sequence[WorkerRecord], now: float) -> float | None:
        rates = [
            record.progress.records_per_s
            for record in running
            if record.progress and record.progress.records_per_s is not None
        ]
        # The first report's rate includes compiling.
        if rates and self._first != self._last:
            total = sum(rates) / len(rates) if self.rate_is_total else sum(rates)
            self._rates.append((now, total))
        while self._rates and now - self._rates[0][0] > RATE_WINDOW_S:
            self._rates.popleft()
        return sum(rate for _, rate in self._rates) / len(self._rates) if self._rates else None


def track_job(spec: JobSpec) -> ProgressTracker:
    """Return the tracker of a job."""
    name = PurePosixPath(spec.run_dir).name
    epochs = spec.train.epochs if spec.train else None
    return ProgressTracker(name, epochs, rate_is_total=spec.train is not None)


def epoch_figures(epoch: Epoch) -> dict[str, float]:
    """Return the loss and the metrics of an epoch by name."""
    loss = {} if epoch.loss is None else {"loss": epoch.loss}
    return {**loss, **epoch.metrics}


def group_activities(records: Sequence[WorkerRecord], now: float) -> tuple[Activity, ...]:
    """Return what the workers do, the least advanced first, those that have ended last."""
    groups: dict[tuple[bool, int, str], list[WorkerRecord]] = {}
    for record in records:
        place = ORDER.index(record.phase) if record.phase in ORDER else -1
        groups.setdefault((record.ended, place, activity_of(record)), []).append(record)
    return tuple(
        Activity(text, _seconds(members, now), tuple(record.index for record in members))
        for (_, _, text), members in sorted(groups.items())
    )


def _seconds(records: Sequence[WorkerRecord], now: float) -> float:
    began = [record.phase_since for record in records if record.phase_since]
    return max(0.0, now - min(began)) if began else 0.0


def activity_of(record: WorkerRecord) -> str:
    """Return what a worker does, or how it ended, in words."""
    if record.lost:
        return "lost"
    if record.exit_code is not None:
        return "done" if record.exit_code == 0 else f"ended ({record.exit_code})"
    if record.state in ("T", "t"):
        return "stopped"
    if record.phase:
        return ACTIVITIES.get(record.phase, record.phase.replace("_", " "))
    return "running" if record.pid else "starting"
