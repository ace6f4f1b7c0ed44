"""Trying again: what storage over a network needs, within a budget of seconds."""

import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Final, TypeVar

from tenfold.data.errors import JobError, UserError

BUDGET_VARIABLE: Final = "TENFOLD_STORAGE_RETRY_S"

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
    text = os.environ.get(BUDGET_VARIABLE, "")
    try:
        budget_s = float(text) if text else RetryPolicy.budget_s
    except ValueError:
        budget_s = -1.0
    if not 0 <= budget_s < float("inf"):
        raise UserError(f"{BUDGET_VARIABLE}={text} is not a number of seconds")
    return RetryPolicy(budget_s)


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
    begun = now()
    for number in count(1):
        try:
            return attempt()
        except TransientError as error:
            pause_s = policy.pause_s(number)
            if now() + pause_s - begun > policy.budget_s:
                raise JobError(
                    f"{what}: {error} (given up after {number} attempts in {now() - begun:.0f} s; "
                    f"{BUDGET_VARIABLE} is {policy.budget_s:g})"
                ) from error
        sleep(pause_s)
    raise AssertionError("count never ends")
