"""When silence is a hang, and which worker is the likely culprit. Pure.

A worker is overdue when its phase lasts ten times as long as ever before, and at least
`hang_timeout_s`; a phase that was never finished before has a limit in FIRST_TIME_S. In training
the clock restarts with each step. Workers that report nothing are judged by their ports alone: a
worker whose port is closed while its peers listen, and wait for it, is missing. Agents send a
message every second whatever their workers do: an agent that falls silent alone is on an
unresponsive host.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tenfold.launcher.job.worker_record import WorkerRecord

OVERDUE_FACTOR: Final = 10.0
FRESH_S: Final = 5.0  # an agent whose last message is younger than this is responsive
# A process state counts for a silence only if it was reported this long after its beginning.
STATE_DELAY_S: Final = 0.5

# Limits for the first time in each phase, in seconds; imports and first steps (tracing,
# compiling) are slow on machines with many workers per core.
FIRST_TIME_S: Final = {
    "import": 300.0,
    "build": 600.0,
    "first_step": 900.0,
    "training": 900.0,
    "evaluation": 1800.0,
    "checkpoint": 900.0,
    "diagnosis": 900.0,
    "saving": 900.0,
}


@dataclass(frozen=True)
class WatchPolicy:
    """Limits in seconds; a `hang_timeout_s` of 0 turns the watchdog off."""

    hang_timeout_s: float = 60.0
    rendezvous_timeout_s: float = 120.0


@dataclass(frozen=True)
class Hang:
    """A hang: the workers that hold up the others, and the reason in words."""

    workers: tuple[int, ...]
    reason: str


def find_hang(policy: WatchPolicy, records: Sequence[WorkerRecord], *, now: float) -> Hang | None:
    """Return the hang at `now` (seconds since 1970), None if there is none.

    Called only while no worker has failed, so workers that have ended were successful.
    """
    running = [record for record in records if not record.ended]
    if not running or not all(record.pid for record in running):
        return None
    return (
        _unresponsive_host(policy, running, now)
        or _missing_peer(policy, running, now)
        or _silence(policy, running, now)
    )


def _unresponsive_host(
    policy: WatchPolicy, records: Sequence[WorkerRecord], now: float
) -> Hang | None:
    """Find hosts whose agent is silent while others are not.

    If all agents are silent, the supervisor's own machine is at fault.
    """
    limit_s = max(policy.hang_timeout_s, FRESH_S)
    silent = [r for r in records if r.state and now - r.agent_at > limit_s]
    some_respond = any(now - record.agent_at <= FRESH_S for record in records)
    if policy.hang_timeout_s <= 0 or not silent or not some_respond:
        return None
    silent_s = now - min(record.agent_at for record in silent)
    return Hang(
        tuple(record.index for record in silent),
        f"host unresponsive: no heartbeat for {silent_s:.0f} s",
    )


def _missing_peer(policy: WatchPolicy, records: Sequence[WorkerRecord], now: float) -> Hang | None:
    """Find workers that have not come to the rendezvous at which the others wait."""
    waiting = [record for record in records if record.listening or record.phase == "rendezvous"]
    absent = [record for record in records if not _has_come(record)]
    if not waiting or not absent:
        return None
    waited_s = now - max(_waiting_since(record) for record in waiting)
    if waited_s < policy.rendezvous_timeout_s:
        return None
    names = ", ".join(f"worker {record.index} ({_describe_progress(record)})" for record in absent)
    reason = f"the rendezvous has waited {waited_s:.0f} s for {names}"
    return Hang(tuple(record.index for record in absent), reason)


def _waiting_since(record: WorkerRecord) -> float:
    """Return when a worker began to wait: one that reports no phases, when it opened its port."""
    return max(record.phase_since, record.listening_since)


def _has_come(record: WorkerRecord) -> bool:
    return record.listening or record.phase not in ("", "import")


def _describe_progress(record: WorkerRecord) -> str:
    stopped = "stopped by a signal, " if record.state in ("T", "t") else ""
    return stopped + (f"in phase {record.phase}" if record.phase else "its port is not open")


def _silence(policy: WatchPolicy, records: Sequence[WorkerRecord], now: float) -> Hang | None:
    """Find a hang of all workers that report phases: each is silent beyond its limit."""
    if policy.hang_timeout_s <= 0:
        return None
    reporting = [record for record in records if record.phase and record.phase != "done"]
    overdue = [record for record in reporting if _silent_s(record, now) > _limit_s(policy, record)]
    if not overdue or len(overdue) < len(reporting):
        return None
    if not all(_is_state_known(record, now) for record in overdue):
        return None  # within a second the agents report which of them is stopped
    first = min(overdue, key=_rank)
    behind = tuple(record.index for record in overdue if _rank(record) == _rank(first))
    reason = (
        f"no progress for {_silent_s(first, now):.0f} s in phase "
        f"{first.phase.replace('_', ' ')}{_usual(first)}"
    )
    return Hang(behind, reason)


def _silent_s(record: WorkerRecord, now: float) -> float:
    return now - _silent_since(record)


def _silent_since(record: WorkerRecord) -> float:
    return max(record.heard_at, record.phase_since)


def _is_state_known(record: WorkerRecord, now: float) -> bool:
    """Whether the agent, if it is responsive, has reported the state during the silence."""
    reported = record.state_at >= _silent_since(record) + STATE_DELAY_S
    return reported or not record.state or now - record.agent_at > FRESH_S


def _limit_s(policy: WatchPolicy, record: WorkerRecord) -> float:
    if record.phase == "rendezvous":
        return policy.rendezvous_timeout_s
    longest = record.longest_s.get(record.phase)
    if longest is None:
        return max(policy.hang_timeout_s, FIRST_TIME_S.get(record.phase, 900.0))
    return max(policy.hang_timeout_s, OVERDUE_FACTOR * longest)


def _usual(record: WorkerRecord) -> str:
    longest = record.longest_s.get(record.phase)
    when = "between steps" if record.phase == "training" else "before"
    return "" if longest is None else f" (at most {longest:.1f} s {when})"


def _rank(record: WorkerRecord) -> tuple[bool, int]:
    """Sort key: stopped workers first, then those with the fewest steps."""
    return (record.state not in ("T", "t"), record.step if record.step is not None else -1)
