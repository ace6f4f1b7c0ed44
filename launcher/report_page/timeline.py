"""The timeline of a launch: the spans of every worker, from history.jsonl. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

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
    "saving": "saving",
    "done": "ending",
}
ORDER: Final = ("starting", "building", "training", "evaluation", "saving", "ending", "running")


@dataclass(frozen=True)
class Event:
    """A line of history.jsonl; `worker` is -1 in a line of the supervisor."""

    time: float
    kind: str
    worker: int = -1
    phase: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)


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
    number of workers that ran then, itself included; `starts` is the number of its starts.
    """

    spans: tuple[Span, ...] = ()
    waited_s: float = 0.0
    step: int | None = None
    records_per_s: float | None = None
    peers: int = 1
    starts: int = 0
    exit_code: int | None = None
    peak_rss_bytes: int = 0

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


def build_timeline(events: Sequence[Event], *, now: float | None) -> Timeline | None:
    """Return the timeline of the last launch, or None if there is no history.

    Args:
      events: the lines of history.jsonl.
      now: seconds since 1970, where the spans of a running job end; None if the job has ended,
        so that they end at the last event.
    """
    launches = [index for index, event in enumerate(events) if event.kind == "launch"]
    if not launches:
        return None
    last = events[launches[-1] :]
    begin, end = last[0].time, max(event.time for event in last)
    end = max(end, now or end)
    workers = 1 + max((event.worker for event in last), default=-1)
    peers = _peers(last)
    steps = [_whole(event.data.get("step")) for event in last if event.kind == "step"]
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
        first_step=min((step for step in steps if step is not None), default=0),
    )


def _peers(events: Iterable[Event]) -> dict[int, int]:
    """Return for each worker the number of workers that ran when it made its last step.

    A job may continue with fewer workers. All workers of an attempt start before any of them
    makes a step.
    """
    together: set[int] = set()
    peers: dict[int, int] = {}
    starting = False
    for event in events:
        if event.kind == "started":
            together = together | {event.worker} if starting else {event.worker}
            starting = True
        elif event.kind in ("step", "exit"):
            starting = False
        if event.kind == "step":
            peers[event.worker] = max(1, len(together))
    return peers


def _worker_time(events: Iterable[Event], end: float, *, peers: int) -> WorkerTime:
    spans: list[Span] = []
    seen: dict[str, Any] = {}
    waited_s, starts, since, kind = 0.0, 0, 0.0, ""
    for event in events:
        if event.kind == "step":
            # Waiting in the first steps belongs to the span `building`.
            waited_s += (_number(event.data.get("waited_s")) or 0.0) * (kind == "training")
            seen.update(event.data)
        if event.kind not in ("started", "phase", "exit"):
            continue
        if kind:
            spans.append(Span(kind, since, event.time))
        since = event.time
        kind = KINDS.get(event.phase, "running") if event.kind != "exit" else ""
        starts += event.kind == "started"
        seen.update(event.data)
    if kind:
        spans.append(Span(kind, since, end))
    return WorkerTime(
        spans=_merged(spans),
        waited_s=waited_s,
        step=_whole(seen.get("step")),
        records_per_s=_number(seen.get("records_per_s")),
        peers=peers,
        starts=starts,
        exit_code=_whole(seen.get("code")),
        peak_rss_bytes=_whole(seen.get("peak_rss_bytes")) or 0,
    )


def _merged(spans: Sequence[Span]) -> tuple[Span, ...]:
    """Join neighbouring spans of one kind, and the time before the first phase with that phase."""
    merged: list[Span] = []
    for span in spans:
        if merged and merged[-1].end == span.begin and merged[-1].kind in (span.kind, "running"):
            merged[-1] = Span(span.kind, merged[-1].begin, span.end)
        else:
            merged.append(span)
    return tuple(merged)


def _marks(events: Iterable[Event]) -> Iterable[Mark]:
    for event in events:
        if event.kind == "error":
            text = f"{event.data.get('type', 'error')}: {event.data.get('message', '')}"
            yield Mark(event.time, event.worker, text.split("\n", 1)[0])
        elif event.kind == "exit" and event.data.get("code") and not event.data.get("by_us"):
            yield Mark(event.time, event.worker, f"exited with {event.data['code']}")
        elif event.kind == "note":
            yield Mark(event.time, -1, str(event.data.get("text", "")))


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) else None
