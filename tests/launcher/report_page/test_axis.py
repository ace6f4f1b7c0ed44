"""The axes of charts: round numbers, whole steps, labels that differ."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenfold.launcher.report_page.axis import round_values, show_short, step_axis, value_axis


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9))
def test_round_values_span_the_range(low: float, span: float) -> None:
    high = low + span
    marks = round_values(low, high)
    if high == low:
        assert marks == (low,)
        return
    assert 2 <= len(marks) <= 8
    slack = 1e-6 * span + 1e-9 * abs(low)
    assert marks[0] <= low + slack
    assert marks[-1] >= high - slack


@given(st.lists(st.integers(0, 10**7), min_size=1, max_size=50))
def test_step_axis_has_whole_ticks_within_the_range(steps: list[int]) -> None:
    axis = step_axis([float(step) for step in steps])
    values = [value for value, _ in axis.ticks]
    assert values
    assert len(values) <= 8
    assert all(value == int(value) and min(steps) <= value <= max(steps) for value in values)
    assert axis.low <= min(steps) <= max(steps) <= axis.high
    assert axis.low < axis.high


@pytest.mark.parametrize(
    ("steps", "labels"),
    [
        ([1, 2, 3], ["1", "2", "3"]),
        ([1, 2], ["1", "2"]),
        ([7], ["7"]),
        ([1, 150], ["50", "100", "150"]),
        ([0, 60_000], ["0", "10k", "20k", "30k", "40k", "50k", "60k"]),
    ],
)
def test_step_labels(steps: list[float], labels: list[str]) -> None:
    assert [label for _, label in step_axis(steps).ticks] == labels


@pytest.mark.parametrize("value", [0.0, 1.0, -3.0, 0.1037, 2.5e9, 1e-12])
def test_flat_values_have_one_tick_in_the_middle(value: float) -> None:
    axis = value_axis([value] * 5)
    assert [tick for tick, _ in axis.ticks] == [value]
    assert axis.share(value) == pytest.approx(0.5)


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=20))
def test_value_axis_holds_all_values_with_different_labels(values: list[float]) -> None:
    axis = value_axis(values)
    labels = [label for _, label in axis.ticks]
    assert len(set(labels)) == len(labels)
    assert axis.low < axis.high
    assert all(len(label) < 25 for label in labels)
    assert all(-1e-6 <= axis.share(value) <= 1 + 1e-6 for value in values)


def test_value_axis_starts_at_zero_unless_that_flattens() -> None:
    assert value_axis([0.2, 3.0]).low == 0
    assert value_axis([0.98, 0.99]).low == pytest.approx(0.98)
    labels = [label for _, label in value_axis([1.00001, 1.00003]).ticks]
    assert labels[:2] == ["1.00001", "1.000015"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.25, "0.25"), (2500, "2,500"), (40_000, "40k"), (1_500_000, "1.5M"), (-20_000, "-20k")],
)
def test_short_figures(value: float, text: str) -> None:
    assert show_short(value) == text
