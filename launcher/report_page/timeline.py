"""The timeline of a launch: the spans of every worker, from history.jsonl. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from tenfold.launcher.job.events import Error, NotFinite, Phase, Resumed, Started
from tenfold.launcher.job.history.history_line import (
    HistoryLine,
    LaunchBegun,
    Note,
    Resized,
    StepProgress,
    WorkerExit,
)

# The span that shows each phase of `launcher.job.events`; a user's own program has no phases.
KINDS: Final = {
    "": "running",
    "import": "starting",
    "rendezvous": "starting",
    "build": "building",
    "first_step": "building",
    "training": "training",
    "evaluation": "evaluation",
    "checkpoint": "saving",
    "diagnosis": "ending",
    "saving": "saving",
    "done": "ending",
}
ORDER: Final = ("starting", "building", "training", "evaluation", "saving", "ending", "running")


@dataclass(frozen=True)
class Span:
    """A stretch of one worker's time, in seconds since 1970."""

    kind: str
    begin: float
    end: float


@dataclass(frozen=True)
class Mark:
    """A failure of a worker, or an action of the supervisor (worker -1)."""

    time: float
    worker: int
    text: str


@dataclass(frozen=True)
class WorkerTime:
    """One worker over all attempts of a launch.

    `waited_s` is the time that its training waited for input; `records_per_s` is the last rate
    that it reported (the built-in trainer reports the rate of the whole job), and `peers` the
    number of workers that ran then, itself included; `started_at` holds the times of its starts.
    """

    spans: tuple[Span, ...] = ()
    waited_s: float = 0.0
    step: int | None = None
    records_per_s: float | None = None
    peers: int = 1
    started_at: tuple[float, ...] = ()
    exit_code: int | None = None
    peak_rss_bytes: int = 0

    @property
    def starts(self) -> int:
        """The number of its starts."""
        return len(self.started_at)

    def seconds(self) -> dict[str, float]:
        """Return the seconds of each kind of span, in ORDER."""
        total: dict[str, float] = defaultdict(float)
        for span in self.spans:
            total[span.kind] += span.end - span.begin
        return {kind: total[kind] for kind in ORDER if kind in total}


@dataclass(frozen=True)
class Timeline:
    """The last launch in a run directory, from `begin` to `end` in seconds since 1970.

    `first_step` is the first step that this launch reported: earlier steps belong to earlier
    launches. `launches` is the number of launches into the run directory.
    """

    begin: float
    end: float
    workers: tuple[WorkerTime, ...]
    marks: tuple[Mark, ...]
    launches: int
    first_step: int = 0


def build_timeline(events: Sequence[HistoryLine], *, now: float | None) -> Timeline | None:
    """Return the timeline of the last launch, or None if there is no history.

    Args:
      events: the lines of history.jsonl.
      now: seconds since 1970, where the spans of a running job end; None if the job has ended,
        so that they end at the last event.
    """
    launches = [
        index for index, event in enumerate(events) if isinstance(event.entry, LaunchBegun)
    ]
    if not launches:
        return None
    last = events[launches[-1] :]
    begin, end = last[0].time, max(event.time for event in last)
    end = max(end, now or end)
    workers = 1 + max((event.worker for event in last), default=-1)
    peers = _peers(last)
    steps = [event.entry.step for event in last if isinstance(event.entry, StepProgress)]
    return Timeline(
        begin=begin,
        end=end,
        workers=tuple(
            _worker_time(
                [event for event in last if event.worker == index], end, peers=peers.get(index, 1)
            )
            for index in range(workers)
        ),
        marks=tuple(_marks(last)),
        launches=len(launches),
        first_step=min(steps, default=0),
    )


def _peers(events: Iterable[HistoryLine]) -> dict[int, int]:
    """Return for each worker the number of workers that ran when it made its last step.

    A job may continue with fewer workers. All workers of an attempt start before any of them
    makes a step.
    """
    together: set[int] = set()
    peers: dict[int, int] = {}
    starting = False
    for event in events:
        if isinstance(event.entry, Started):
            together = together | {event.worker} if starting else {event.worker}
            starting = True
        elif isinstance(event.entry, StepProgress | WorkerExit):
            starting = False
        if isinstance(event.entry, StepProgress):
            peers[event.worker] = max(1, len(together))
    return peers


def _worker_time(events: Sequence[HistoryLine], end: float, *, peers: int) -> WorkerTime:
    total = WorkerTime(spans=_merged(_spans(events, end)), peers=peers)
    kind = ""
    for event in events:
        match event.entry:
            case StepProgress() as step:
                # Waiting in the first steps belongs to the span `building`.
                waited_s = total.waited_s + step.waited_s * (kind == "training")
                total = replace(total, step=step.step, waited_s=waited_s)
                if step.records_per_s is not None:
                    total = replace(total, records_per_s=step.records_per_s)
            case WorkerExit(code=code, peak_rss_bytes=peak):
                total = replace(total, exit_code=code, peak_rss_bytes=peak)
                kind = ""
            case Started():
                total = replace(total, started_at=(*total.started_at, event.time))
                kind = _kind_of(event)
            case Phase():
                kind = _kind_of(event)
    return total


def _kind_of(event: HistoryLine) -> str:
    return KINDS.get(event.phase, "running")


def _spans(events: Iterable[HistoryLine], end: float) -> list[Span]:
    """Return the spans between neighbouring starts, phases and exits; the last ends at `end`."""
    spans: list[Span] = []
    since, kind = 0.0, ""
    for event in events:
        if not isinstance(event.entry, Started | Phase | WorkerExit):
            continue
        if kind:
            spans.append(Span(kind, since, event.time))
        since = event.time
        kind = "" if isinstance(event.entry, WorkerExit) else _kind_of(event)
    if kind:
        spans.append(Span(kind, since, end))
    return spans


def _merged(spans: Sequence[Span]) -> tuple[Span, ...]:
    """Join neighbouring spans of one kind, and the time before the first phase with that phase."""
    merged: list[Span] = []
    for span in spans:
        if merged and merged[-1].end == span.begin and merged[-1].kind in (span.kind, "running"):
            merged[-1] = Span(span.kind, merged[-1].begin, span.end)
        else:
            merged.append(span)
    return tuple(merged)


@dataclass(frozen=True)
class Restart:
    """A start of the workers other than the run's first: training continues after `step`."""

    step: int
    text: str


def find_restarts(events: Iterable[HistoryLine]) -> tuple[Restart, ...]:
    """Return the restarts of a run, over all launches, from the events of worker 0."""
    restarts: list[Restart] = []
    starts, text = 0, ""
    for event in events:
        match event.entry:
            case LaunchBegun():
                text = "launched again"
            case Started() if event.worker == 0:
                starts += 1
                text = text or "restarted"
            case Resumed(step=step) if event.worker == 0 and starts > 1 and text:
                restarts.append(Restart(step, f"{text}: training continues after step {step:,}"))
                text = ""
            case StepProgress() if event.worker == 0:
                if starts > 1 and text:  # without a checkpoint
                    restarts.append(Restart(0, f"{text}: training begins again"))
                text = ""
    return tuple(restarts)


def find_not_finite(events: Iterable[HistoryLine]) -> NotFinite | None:
    """Return the first value that was not finite in the last launch, None if there is none.

    One that ended the run goes before steps that were skipped.
    """
    found: NotFinite | None = None
    for event in events:
        if isinstance(event.entry, LaunchBegun):
            found = None
        elif isinstance(event.entry, NotFinite) and (
            found is None or (found.is_skipped and not event.entry.is_skipped)
        ):
            found = event.entry
    return found


def _marks(events: Iterable[HistoryLine]) -> Iterable[Mark]:
    for event in events:
        match event.entry:
            case Error(type=name, message=message):
                yield Mark(event.time, event.worker, f"{name}: {message}".split("\n", 1)[0])
            case WorkerExit(code=code, by_us=False) if code:
                yield Mark(event.time, event.worker, f"exited with {code}")
            case Note(text=text) | Resized(text=text):
                yield Mark(event.time, -1, text)
