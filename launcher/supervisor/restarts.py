"""Whether a job whose workers have failed goes on. Pure.

Crashes and preemptions have budgets of their own: on machines that are taken away often a
job may be preempted a hundred times, but should not crash a hundred times.
"""

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tenfold.launcher.job.job_result import Failure

# A failure that comes again at the same step is in the program or the data: another try
# would end there too. A signal comes from outside and may hit the same step by chance.
SAME_ERROR_LIMIT: Final = 2
SAME_SIGNAL_LIMIT: Final = 3
# What TensorFlow says where another process has taken the port; the next attempt has other ports.
_PORT_TAKEN: Final = "Could not start gRPC server"
# What names a damaged record. Reading runs ahead of the steps, not always equally far.
_NAMES_A_RECORD: Final = " at byte "


@dataclass(frozen=True)
class RestartPolicy:
    """Budgets: how many crashes and how many preemptions a job may get over."""

    max_restarts: int = 0
    max_preemptions: int = 100


@dataclass(frozen=True)
class Ending:
    """How one attempt ended."""

    failure: Failure
    preempted: bool = False


@dataclass(frozen=True)
class Decision:
    """Whether to start again, and why (not)."""

    go_on: bool
    reason: str


def decide(policy: RestartPolicy, endings: Sequence[Ending]) -> Decision:
    """Returns what to do after `endings`, the last attempt's last; there is at least one."""
    last = endings[-1]
    same = [ending for ending in endings if ending.preempted == last.preempted]
    if last.preempted:
        return _within(len(same), policy.max_preemptions, "preemption", "--max_preemptions")
    if policy.max_restarts and _repeats(same):
        step = last.failure.step
        where = f"at step {step}" if step is not None else "before the first step"
        return Decision(False, f"the same failure repeated {where}: a restart would not help")
    return _within(len(same), policy.max_restarts, "restart", "--max_restarts")


def _within(used: int, budget: int, what: str, flag: str) -> Decision:
    if used <= budget:
        return Decision(True, f"{what} {used} of {budget}")
    if budget == 0:
        return Decision(False, "")
    return Decision(False, f"the budget of {budget} {what}s is used up: raise {flag}")


def _repeats(endings: Sequence[Ending]) -> bool:
    last = endings[-1].failure
    if _PORT_TAKEN in last.error:
        return False
    limit = SAME_SIGNAL_LIMIT if _from_outside(last) else SAME_ERROR_LIMIT
    recent = [ending.failure for ending in endings[-limit:]]
    return len(recent) == limit and all(_alike(failure, last) for failure in recent)


def _from_outside(failure: Failure) -> bool:
    code = failure.exit_code
    return code is None or code in (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGHUP)


def _alike(one: Failure, other: Failure) -> bool:
    first_lines = [failure.error.split("\n", 1)[0] for failure in (one, other)]
    if len(set(first_lines)) > 1:
        return False
    same_place = (one.phase, one.step) == (other.phase, other.step)
    return same_place or _NAMES_A_RECORD in first_lines[0]
