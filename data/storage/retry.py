"""Retry requests to remote storage within a time budget."""

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

# Log one warning if retries go on longer than this.
WARN_AFTER_S: Final = 3.0

_log = logging.getLogger(__name__)

Result = TypeVar("Result")


class TransientError(OSError):
    """A failure that a retry may mend: a busy server, a cut connection, a damaged body."""


@dataclass(frozen=True)
class RetryPolicy:
    """Exponential backoff with full jitter, within a budget.

    Attributes:
      budget_s: No attempt begins later than this after the first one.
      first_pause_s: Longest pause before the first retry; it doubles with each further one.
      max_pause_s: Longest pause of all.
    """

    budget_s: float = 120.0
    first_pause_s: float = 0.25
    max_pause_s: float = 16.0

    def pause_s(self, retry: int) -> float:
        """Return a random number of seconds to wait before a retry, counted from 1."""
        return random.uniform(0.0, min(self.max_pause_s, self.first_pause_s * 2 ** (retry - 1)))


def storage_policy() -> RetryPolicy:
    """Return the policy for storage; TENFOLD_STORAGE_RETRY_S sets its budget in seconds.

    Raises:
      UserError: the variable is not a number of seconds.
    """
    return RetryPolicy(_seconds(BUDGET_VARIABLE, RetryPolicy.budget_s, minimum=0.0))


def stall_s() -> float:
    """Return the seconds without a byte after which a request is given up.

    TENFOLD_STORAGE_STALL_S sets them.

    Raises:
      UserError: the variable is not a number of seconds.
    """
    return _seconds(STALL_VARIABLE, 20.0, minimum=0.01)


def _seconds(variable: str, default: float, *, minimum: float) -> float:
    text = os.environ.get(variable, "")
    try:
        seconds = float(text) if text else default
    except ValueError:
        seconds = -1.0
    if not minimum <= seconds < float("inf"):
        raise UserError(f"{variable}={text} is not a number of seconds, at least {minimum:g}")
    return seconds


def with_retries(
    attempt: Callable[[], Result],
    *,
    what: str,
    policy: RetryPolicy | None = None,
    sleep: Callable[[float], None] = time.sleep,
    now: Callable[[], float] = time.monotonic,
) -> Result:
    """Call `attempt` until it does not raise TransientError, and return its result.

    Args:
      attempt: The function to call; any other exception passes through at once.
      what: Path or action that messages name.
      policy: Budget and pauses; by default `storage_policy`.
      sleep: Replaces time.sleep in tests.
      now: Replaces time.monotonic in tests.

    Raises:
      JobError: the budget is spent; the message names `what` and the last failure.
    """
    policy = policy or storage_policy()
    begun, warned = now(), False
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
            if not warned and now() - begun > WARN_AFTER_S:
                warned = True
                _log.warning("%s: %s; retrying for up to %g s", what, error, policy.budget_s)
        sleep(pause_s)
    raise AssertionError("count never ends")
