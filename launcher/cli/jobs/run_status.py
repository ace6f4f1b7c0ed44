"""The state of a job in a few lines: what `tenfold status` and `tenfold list` show. Pure."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tenfold.data.units import format_duration, plural
from tenfold.launcher.job.events import Error, Phase, Resumed, Started
from tenfold.launcher.job.history.history_line import (
    NO_WORKER,
    HistoryLine,
    LaunchBegun,
    Resized,
    StepProgress,
    WorkerExit,
)
from tenfold.launcher.report_page.run_files import RUNNING, RunFiles

# A running worker sends a step at least this often in most jobs; a longer silence is shown.
SILENT_S: Final = 30.0


@dataclass(frozen=True)
class WorkerStatus:
    """What a worker's last events say.

    Attributes:
      worker: its index.
      phase: its phase, "" for a program that reports none.
      step, total_steps, loss: of the last step that it reported.
      records_per_s: the last rate that it reported.
      exit_code: its exit status, None while it runs.
      error: the first line of its error, "" without one.
      heard_at: the time of its last event, in seconds since 1970; None without one.
    """

    worker: int
    phase: str = ""
    step: int | None = None
    total_steps: int | None = None
    loss: float | None = None
    records_per_s: float | None = None
    exit_code: int | None = None
    error: str = ""
    heard_at: float | None = None


@dataclass(frozen=True)
class HostChange:
    """A start of the workers on other hosts than before, at `time` in seconds since 1970."""

    time: float
    before: int
    num_workers: int
    text: str


@dataclass(frozen=True)
class RunStatus:
    """The state of one run directory.

    Attributes:
      run_dir: its path or URL.
      state: as `RunFiles.state`.
      program: the model or the program.
      num_workers: the number of workers.
      epochs: finished epochs.
      begun: when its last launch began, in seconds since 1970; None if it has not.
      seconds: how long the last launch has lasted.
      workers: one per worker.
      first_failure: the first failure in words, "" without one.
      platform: what the platform says of the job, "" without a platform.
      changes: the changes of the hosts in the last launch, oldest first.
    """

    run_dir: str
    state: str
    program: str
    num_workers: int
    epochs: int
    begun: float | None
    seconds: float | None
    workers: tuple[WorkerStatus, ...]
    first_failure: str = ""
    platform: str = ""
    changes: tuple[HostChange, ...] = ()

    @property
    def step(self) -> int | None:
        """The last step that all workers have done, as far as they have reported it."""
        return min((w.step for w in self.workers if w.step is not None), default=None)


def run_status(run: RunFiles, *, platform: str = "") -> RunStatus:
    """Return the state of a run directory.

    Args:
      run: the content of the run directory.
      platform: what the platform says of the job.
    """
    last = _last_launch(run.events)
    begun = last[0].time if last else None
    end = run.read_at if run.state == RUNNING else max((e.time for e in last), default=None)
    failure = run.result.first_failure if run.result else None
    train = run.spec.train
    return RunStatus(
        run_dir=run.where,
        state=run.state,
        program=f"model {train.model}" if train else " ".join(run.spec.argv),
        num_workers=run.spec.num_workers,
        epochs=len({line.epoch for line in run.epochs}),
        begun=begun,
        seconds=None if begun is None or end is None else round(max(0.0, end - begun), 3),
        workers=tuple(_worker_status(index, last) for index in range(run.spec.num_workers)),
        first_failure=f"worker {failure.worker}: {failure.error}" if failure else "",
        platform=platform,
        changes=tuple(
            HostChange(event.time, event.entry.before, event.entry.num_workers, event.entry.text)
            for event in last
            if isinstance(event.entry, Resized)
        ),
    )


def _last_launch(events: Sequence[HistoryLine]) -> Sequence[HistoryLine]:
    begins = [i for i, event in enumerate(events) if isinstance(event.entry, LaunchBegun)]
    return events[begins[-1] :] if begins else []


def _worker_status(index: int, events: Sequence[HistoryLine]) -> WorkerStatus:
    """Return the state of a worker since its last start."""
    own = [event for event in events if event.worker == index and index != NO_WORKER]
    starts = [i for i, event in enumerate(own) if isinstance(event.entry, Started)]
    fields: dict[str, object] = {"heard_at": own[-1].time if own else None}
    for event in own[starts[-1] if starts else 0 :]:
        match event.entry:
            case StepProgress() as step:
                fields |= {"step": step.step, "phase": "training", "loss": step.loss}
                if step.total_steps is not None:
                    fields["total_steps"] = step.total_steps
                if step.records_per_s is not None:
                    fields["records_per_s"] = step.records_per_s
            case Resumed(step=step_number):
                fields["step"] = step_number
            case Phase():
                fields["phase"] = event.phase
            case Error(type=kind, message=message):
                fields["error"] = f"{kind}: {message}".split("\n", 1)[0]
            case WorkerExit(code=code):
                fields["exit_code"] = code
    return WorkerStatus(index, **fields)  # type: ignore[arg-type]


def status_text(status: RunStatus, *, now: float) -> str:
    """Return the lines of `tenfold status`.

    Args:
      status: the state of the run directory.
      now: seconds since 1970.
    """
    took = f" for {format_duration(status.seconds)}" if status.seconds is not None else ""
    if status.state != RUNNING:
        took = took.replace(" for ", " after ")
    lines = [f"{status.state}{took}: {status.program}, {plural(status.num_workers, 'worker')}"]
    if status.platform:
        lines.append(f"  platform: {status.platform}")
    if status.begun is not None:
        begun = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(status.begun))
        lines.append(f"  begun: {begun}")
    if status.epochs:
        lines.append(f"  epochs: {status.epochs}")
    lines += [f"  {_clock(change.time)}: {change.text}" for change in status.changes]
    lines += [f"  worker {each.worker}: {_worker_text(each, now)}" for each in status.workers]
    if status.first_failure:
        lines.append(f"first failure: {status.first_failure}")
    lines.append(f"run directory: {status.run_dir}")
    return "\n".join(lines) + "\n"


def _clock(seconds: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(seconds))


def _worker_text(worker: WorkerStatus, now: float) -> str:
    if worker.heard_at is None:
        return "has not started"
    words = []
    if worker.exit_code is not None:
        words.append(f"ended ({worker.exit_code})")
    else:
        words.append(worker.phase.replace("_", " ") or "running")
    if worker.step is not None:
        total = f"/{worker.total_steps}" if worker.total_steps else ""
        words.append(f"step {worker.step}{total}")
    if worker.loss is not None:
        words.append(f"loss {worker.loss:.4g}")
    if worker.records_per_s is not None:
        words.append(f"{worker.records_per_s:,.0f} records/s")
    if worker.error:
        words.append(worker.error)
    silent_s = now - worker.heard_at
    if worker.exit_code is None and silent_s > SILENT_S:
        words.append(f"last heard of {format_duration(silent_s)} ago")
    return ", ".join(words)
