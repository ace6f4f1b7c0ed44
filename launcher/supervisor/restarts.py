"""Whether a job is restarted after a failure. Pure.

Crashes and preemptions have separate budgets: on machines that are preempted often a job may be
preempted a hundred times, but should not crash a hundred times.
"""

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tenfold.launcher.job.events import EXIT_NOT_FINITE, NOT_FINITE_ERROR
from tenfold.launcher.job.job_result import Failure

# A failure that repeats at the same step is in the program or the data: another restart would end
# there too. A signal comes from outside and may hit the same step by chance.
SAME_ERROR_LIMIT: Final = 2
SAME_SIGNAL_LIMIT: Final = 3
# TensorFlow's error if another process has taken the port; the next attempt has other ports.
_PORT_TAKEN: Final = "Could not start gRPC server"
# Part of errors that name a damaged record: they repeat at different steps, because reading runs
# ahead of the steps by varying amounts.
_RECORD_MARK: Final = " at byte "


@dataclass(frozen=True)
class RestartPolicy:
    """Budgets: how often a job is restarted after crashes and after preemptions."""

    max_restarts: int = 0
    max_preemptions: int = 100


@dataclass(frozen=True)
class Ending:
    """How one attempt ended."""

    failure: Failure
    preempted: bool = False


@dataclass(frozen=True)
class Decision:
    """Whether to restart, and why or why not; `reason` is empty without a budget."""

    restart: bool
    reason: str


def decide(policy: RestartPolicy, endings: Sequence[Ending]) -> Decision:
    """Return whether to restart after `endings`, oldest first and at least one."""
    last = endings[-1]
    same = [ending for ending in endings if ending.preempted == last.preempted]
    if last.preempted:
        return _within(len(same), policy.max_preemptions, "preemption", "--max_preemptions")
    if _is_not_finite(last.failure):
        reason = "the values would not be finite at the same step again"
        return Decision(False, reason if policy.max_restarts else "")
    if policy.max_restarts and _repeats(same):
        step = last.failure.step
        where = f"at step {step}" if step is not None else "before the first step"
        return Decision(False, f"the same failure repeated {where}: a restart would not help")
    return _within(len(same), policy.max_restarts, "restart", "--max_restarts")


def _is_not_finite(failure: Failure) -> bool:
    """Whether the trainer found a value that is not finite; its exit may not be known yet."""
    return failure.exit_code == EXIT_NOT_FINITE or failure.error.startswith(NOT_FINITE_ERROR)


def _within(used: int, budget: int, cause: str, flag: str) -> Decision:
    if used <= budget:
        return Decision(True, f"{cause} {used} of {budget}")
    if budget == 0:
        return Decision(False, "")
    return Decision(False, f"the budget of {budget} {cause}s is used up: raise {flag}")


def _repeats(endings: Sequence[Ending]) -> bool:
    last = endings[-1].failure
    if _PORT_TAKEN in last.error:
        return False
    limit = SAME_SIGNAL_LIMIT if _from_outside(last) else SAME_ERROR_LIMIT
    recent = [ending.failure for ending in endings[-limit:]]
    return len(recent) == limit and all(_is_same(failure, last) for failure in recent)


def _from_outside(failure: Failure) -> bool:
    code = failure.exit_code
    return code is None or code in (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGHUP)


def _is_same(first: Failure, second: Failure) -> bool:
    first_lines = [failure.error.split("\n", 1)[0] for failure in (first, second)]
    if len(set(first_lines)) > 1:
        return False
    same_place = (first.phase, first.step) == (second.phase, second.step)
    return same_place or _RECORD_MARK in first_lines[0]
