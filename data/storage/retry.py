"""Trying again: what storage over a network needs, within a budget of seconds."""

import logging
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Final, TypeVar

from tenfold.data.errors import JobError, UserError

BUDGET_VARIABLE: Final = "TENFOLD_STORAGE_RETRY_S"
STALL_VARIABLE: Final = "TENFOLD_STORAGE_STALL_S"

# Trouble that lasts longer is told, once.
QUIET_S: Final = 3.0

_log = logging.getLogger(__name__)

Result = TypeVar("Result")


class TransientError(OSError):
    """May be gone the next time: a busy server, a cut connection, a damaged body."""


@dataclass(frozen=True)
class RetryPolicy:
    """How long to go on: no attempt begins later than `budget_s` after the first.

    Before attempt n (from 1) lies a pause of random length, up to `first_s` × 2**(n-1) and
    `most_s` (exponential backoff with full jitter).
    """

    budget_s: float = 120.0
    first_s: float = 0.25
    most_s: float = 16.0

    def pause_s(self, attempt: int) -> float:
        """Returns the seconds to wait before `attempt`, a random number."""
        return random.uniform(0.0, min(self.most_s, self.first_s * 2 ** (attempt - 1)))


def storage_policy() -> RetryPolicy:
    """Returns the policy for storage; TENFOLD_STORAGE_RETRY_S sets its budget in seconds.

    Raises:
      UserError: the variable is no number of seconds.
    """
    return RetryPolicy(_seconds(BUDGET_VARIABLE, RetryPolicy.budget_s, least=0.0))


def stall_s() -> float:
    """Returns after how many seconds without a byte a request is given up.

    TENFOLD_STORAGE_STALL_S sets it.

    Raises:
      UserError: the variable is no number of seconds.
    """
    return _seconds(STALL_VARIABLE, 20.0, least=0.01)


def _seconds(variable: str, default: float, *, least: float) -> float:
    text = os.environ.get(variable, "")
    try:
        seconds = float(text) if text else default
    except ValueError:
        seconds = -1.0
    if not least <= seconds < float("inf"):
        raise UserError(f"{variable}={text} is not a number of seconds, at least {least:g}")
    return seconds


def with_retries(
    attempt: Callable[[], Result],
    *,
    what: str,
    policy: RetryPolicy | None = None,
    sleep: Callable[[float], None] = time.sleep,
    now: Callable[[], float] = time.monotonic,
) -> Result:
    """Returns what `attempt` returns, calling it again while it raises TransientError.

    Raises:
      JobError: the budget is spent; it names `what` and the last failure.
    """
    policy = policy or storage_policy()
    begun, told = now(), False
    for number in count(1):
        try:
            return attempt()
        except TransientError as error:
            left_s = policy.budget_s - (now() - begun)
            pause_s = min(policy.pause_s(number), left_s)
            if left_s <= 0:
                raise JobError(
                    f"{what}: {error} (given up after {number} attempts in {now() - begun:.0f} s; "
                    f"{BUDGET_VARIABLE} is {policy.budget_s:g})"
                ) from error
            if not told and now() - begun > QUIET_S:
                told = True
                _log.warning("%s: %s; trying again for up to %g s", what, error, policy.budget_s)
        sleep(pause_s)
    raise AssertionError("count never ends")
