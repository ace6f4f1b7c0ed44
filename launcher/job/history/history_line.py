"""The lines of history.jsonl: what happened when on which worker. Pure.

One JSON object per line: `time` (seconds since 1970, by the supervisor's clock), `kind` (see
_ENTRIES), `worker` and `phase` where it concerns a worker, and the fields of the entry.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from tenfold.data.format.json_fields import from_json_fields
from tenfold.launcher.job.events import (
    CheckpointSaved,
    Error,
    Exit,
    NotFinite,
    Phase,
    Resumed,
    Started,
    Unknown,
    WorkerPreempted,
)

NO_WORKER: Final = -1


@dataclass(frozen=True)
class LaunchBegun:
    """A launch begins in this run directory."""

    num_workers: int = 0
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Note:
    """An action of the supervisor, in words."""

    text: str


@dataclass(frozen=True)
class Resized:
    """The next start of the workers has other hosts than the one before.

    Attributes:
      before: the number of workers until then.
      num_workers: the number of workers from then on.
      hosts: the host of each worker from then on.
      text: the change and its reason, in words.
    """

    before: int = 0
    num_workers: int = 0
    hosts: tuple[str, ...] = ()
    text: str = ""


@dataclass(frozen=True)
class StepProgress:
    """A worker's last step; at most one line per second and worker.

    `waited_s` is how long the worker waited for input since its previous line, `exchanged_s` how
    long it exchanged gradients, None where that is not measured; the other fields are those of
    `events.Step`.
    """

    step: int
    epoch: int | None = None
    total_steps: int | None = None
    loss: float | None = None
    records_per_s: float | None = None
    waited_s: float = 0.0
    exchanged_s: float | None = None


@dataclass(frozen=True)
class WorkerExit(Exit):
    """A worker has ended; `peak_rss_bytes` is the most resident memory seen of it."""

    peak_rss_bytes: int = 0


Entry = (
    LaunchBegun | Note | Resized | StepProgress | WorkerExit | Started | Phase | Error
    | CheckpointSaved | NotFinite | WorkerPreempted | Resumed | Unknown
)  # fmt: skip

_ENTRIES: Final[dict[str, type]] = {
    "launch": LaunchBegun,
    "note": Note,
    "resized": Resized,
    "step": StepProgress,
    "exit": WorkerExit,
    "started": Started,
    "phase": Phase,
    "not_finite": NotFinite,
    "error": Error,
    "checkpoint": CheckpointSaved,
    "preempted": WorkerPreempted,
    "resumed": Resumed,
}
_KINDS: Final = {entry: kind for kind, entry in _ENTRIES.items()}


@dataclass(frozen=True)
class HistoryLine:
    """One line; `worker` is NO_WORKER where it concerns none."""

    time: float
    entry: Entry
    worker: int = NO_WORKER
    phase: str = ""


def encode_history(line: HistoryLine) -> str:
    """Return the JSON text of a line, newline included."""
    fields = {name: value for name, value in asdict(line.entry).items() if value is not None}
    place = {} if line.worker == NO_WORKER else {"worker": line.worker, "phase": line.phase}
    document = {"time": line.time, "kind": _KINDS[type(line.entry)], **place, **fields}
    return json.dumps(document, ensure_ascii=False) + "\n"


def decode_history(text: str) -> HistoryLine:
    """Return the line that `encode_history` wrote; its entry is Unknown for an unknown kind.

    Raises:
      ValueError: it is damaged.
    """
    document = json.loads(text)
    place = from_json_fields(_Place, document, ignore_unknown=True)
    return HistoryLine(place.time, _parse_entry(place.kind, document), place.worker, place.phase)


def merge_history(
    lines: Sequence[HistoryLine], member: Sequence[HistoryLine]
) -> list[HistoryLine]:
    """Return the lines of the chief and of another member of a joined job as one history.

    A member's last launch belongs to the chief's last launch, and so on backwards, whatever
    their hosts' clocks say; within a launch, lines are in the order of their times.
    """
    launches, others = _split_launches(lines), _split_launches(member)
    for launch, other in zip(reversed(launches), reversed(others), strict=False):
        events = [line for line in other if not isinstance(line.entry, LaunchBegun)]
        launch[1:] = sorted([*launch[1:], *events], key=lambda line: line.time)
    return [line for launch in launches for line in launch]


def _split_launches(lines: Sequence[HistoryLine]) -> list[list[HistoryLine]]:
    launches: list[list[HistoryLine]] = []
    for line in lines:
        if not launches or isinstance(line.entry, LaunchBegun):
            launches.append([])
        launches[-1].append(line)
    return launches


@dataclass(frozen=True)
class _Place:
    time: float
    kind: str
    worker: int = NO_WORKER
    phase: str = ""


def _parse_entry(kind: str, document: dict[str, Any]) -> Entry:
    if kind not in _ENTRIES:
        return Unknown(kind)
    entry: Entry = from_json_fields(_ENTRIES[kind], document, ignore_unknown=True)
    return entry
