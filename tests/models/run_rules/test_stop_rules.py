"""When a training ends before its last epoch."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenfold.data.errors import UserError
from tenfold.models.run_rules.figures import BestFigure
from tenfold.models.run_rules.stop_rules import NO_RULES, StopRules

BEST = BestFigure(0.25, step=1200, since=3)


@pytest.mark.parametrize(
    ("rules", "steps", "over_time", "reason"),
    [
        (NO_RULES, 10**9, False, ""),
        (StopRules(max_steps=100), 99, False, ""),
        (StopRules(max_steps=100), 100, False, "--max_steps=100"),
        (StopRules(max_steps=100), 101, False, "--max_steps=100"),
        (StopRules(max_time_s=1800), 5, True, "--max_time=30min00s"),
        (StopRules(patience=4), 5, False, ""),
        (
            StopRules(patience=3), 5, False,
            "--patience=3: no better val_loss in 3 evaluations than 0.25 at step 1,200",
        ),
    ],
)  # fmt: skip
def test_reason_names_the_rule(rules: StopRules, steps: int, over_time: bool, reason: str) -> None:
    assert rules.reason(steps_done=steps, over_time=over_time, best=BEST) == reason


@given(st.integers(1, 10**6), st.integers(0, 10**6), st.integers(1, 64))
def test_calls_of_steps_end_at_max_steps(limit: int, done: int, wanted: int) -> None:
    """Calls that are cut to `steps_left` never pass the limit, and reach it if repeated."""
    rules = StopRules(max_steps=limit)
    call = min(wanted, rules.steps_left(done))
    ended = bool(rules.reason(steps_done=done, over_time=False, best=BEST))
    assert (call == 0) == ended
    assert ended or done + call <= limit


def test_no_limit_of_steps_is_infinite() -> None:
    assert NO_RULES.steps_left(10**12) == math.inf


@pytest.mark.parametrize(
    ("limit", "seconds", "over"), [(0, 1e9, False), (5, 4.9, False), (5, 5, True)]
)
def test_time_is_over_from_the_limit_on(limit: float, seconds: float, over: bool) -> None:
    assert StopRules(max_time_s=limit).is_over_time(seconds) == over


def test_negative_rule_is_refused() -> None:
    with pytest.raises(UserError, match="max_steps is -1: it must be at least 0"):
        StopRules(max_steps=-1)
