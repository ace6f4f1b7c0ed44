"""When silence is a hang, and who is the likely culprit. Pure.

A worker is overdue when its phase lasts ten times the longest that it took before, and at
least `hang_timeout_s`; a phase that was never finished before has a limit of its own.
Between steps the clock starts anew with each report. Workers that report nothing are judged
by their ports alone: one that does not listen while its peers do, and wait for it, is missing.
Agents speak once a second whatever their workers do: one that falls silent alone is on a host
that stands still.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tenfold.launcher.job.worker_record import WorkerRecord

PATIENCE: Final = 10.0
FRESH_S: Final = 5.0  # an agent that was heard so short a while ago is there
LOOK_S: Final = 0.5  # a state that was told so long after the last word belongs to the silence

# Limits, in seconds, for the first time that a phase is gone through; imports and first
# steps (tracing, compiling) are slow on machines with many workers per core.
FIRST_TIME_S: Final = {
    "import": 300.0,
    "build": 600.0,
    "first_step": 900.0,
    "training": 900.0,
    "evaluation": 1800.0,
    "checkpoint": 900.0,
    "saving": 900.0,
}


@dataclass(frozen=True)
class WatchPolicy:
    """Limits in seconds; a `hang_timeout_s` of 0 turns the watchdog off."""

    hang_timeout_s: float = 60.0
    rendezvous_timeout_s: float = 120.0


@dataclass(frozen=True)
class Finding:
    """What the watchdog has found: the workers that hold up the others, and why."""

    workers: tuple[int, ...]
    reason: str


def find_hang(
    policy: WatchPolicy, records: Sequence[WorkerRecord], *, now: float
) -> Finding | None:
    """Returns what is wrong at `now` (seconds since 1970), or None.

    Workers that have ended are those that ended well: one that failed is judged by that.
    """
    running = [record for record in records if not record.ended]
    if not running or not all(record.pid for record in running):
        return None
    return (
        _still_host(policy, running, now)
        or _missing_peer(policy, running, now)
        or _silence(policy, running, now)
    )


def _still_host(
    policy: WatchPolicy, records: Sequence[WorkerRecord], now: float
) -> Finding | None:
    """A host whose agent is silent while others are not; all at once would be our own fault."""
    limit_s = max(policy.hang_timeout_s, FRESH_S)
    silent = [r for r in records if r.state and now - r.agent_at > limit_s]
    some_speak = any(now - record.agent_at <= FRESH_S for record in records)
    if policy.hang_timeout_s <= 0 or not silent or not some_speak:
        return None
    silent_s = now - min(record.agent_at for record in silent)
    return Finding(
        tuple(record.index for record in silent),
        f"host unresponsive: no heartbeat for {silent_s:.0f} s",
    )


def _missing_peer(
    policy: WatchPolicy, records: Sequence[WorkerRecord], now: float
) -> Finding | None:
    """A worker that has not come to the rendezvous for which the others wait."""
    waiting = [record for record in records if record.listening or record.phase == "rendezvous"]
    absent = [record for record in records if not _has_come(record)]
    if not waiting or not absent:
        return None
    waited = now - max(_waiting_since(record) for record in waiting)
    if waited < policy.rendezvous_timeout_s:
        return None
    names = ", ".join(f"worker {record.index} ({_whereabouts(record)})" for record in absent)
    reason = f"the rendezvous has waited {waited:.0f} s for {names}"
    return Finding(tuple(record.index for record in absent), reason)


def _waiting_since(record: WorkerRecord) -> float:
    """A program that tells no phases begins to wait when it opens its port."""
    return max(record.phase_since, record.listening_since)


def _has_come(record: WorkerRecord) -> bool:
    return record.listening or record.phase not in ("", "import")


def _whereabouts(record: WorkerRecord) -> str:
    stopped = "stopped by a signal, " if record.state in ("T", "t") else ""
    return stopped + (f"in phase {record.phase}" if record.phase else "its port is not open")


def _silence(policy: WatchPolicy, records: Sequence[WorkerRecord], now: float) -> Finding | None:
    """All that report are silent for longer than their phases allow."""
    if policy.hang_timeout_s <= 0:
        return None
    reporting = [record for record in records if record.phase and record.phase != "done"]
    overdue = [record for record in reporting if _silent_s(record, now) > _limit_s(policy, record)]
    if not overdue or len(overdue) < len(reporting):
        return None
    if not all(_looked_at(record, now) for record in overdue):
        return None  # who of them is stopped will be known in a second
    first = min(overdue, key=_rank)
    behind = tuple(record.index for record in overdue if _rank(record) == _rank(first))
    reason = (
        f"no progress for {_silent_s(first, now):.0f} s in phase "
        f"{first.phase.replace('_', ' ')}{_usual(first)}"
    )
    return Finding(behind, reason)


def _silent_s(record: WorkerRecord, now: float) -> float:
    return now - _silent_since(record)


def _silent_since(record: WorkerRecord) -> float:
    return max(record.heard_at, record.phase_since)


def _looked_at(record: WorkerRecord, now: float) -> bool:
    """Says whether its agent, if it still speaks, has told its state during the silence."""
    told = record.state_at >= _silent_since(record) + LOOK_S
    return told or not record.state or now - record.agent_at > FRESH_S


def _limit_s(policy: WatchPolicy, record: WorkerRecord) -> float:
    if record.phase == "rendezvous":
        return policy.rendezvous_timeout_s
    longest = record.longest_s.get(record.phase)
    if longest is None:
        return max(policy.hang_timeout_s, FIRST_TIME_S.get(record.phase, 900.0))
    return max(policy.hang_timeout_s, PATIENCE * longest)


def _usual(record: WorkerRecord) -> str:
    longest = record.longest_s.get(record.phase)
    what = "between steps" if record.phase == "training" else "before"
    return "" if longest is None else f" (at most {longest:.1f} s {what})"


def _rank(record: WorkerRecord) -> tuple[bool, int]:
    """Stopped workers first, then those that have come the least far."""
    return (record.state not in ("T", "t"), record.step if record.step is not None else -1)
