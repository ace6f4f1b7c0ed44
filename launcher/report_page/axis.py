"""The axes of a chart: their range, and where which labels stand. Pure."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from tenfold.launcher.report_page.series import show

# A flat curve is drawn in the middle of a range of this share of its value on either side.
_FLAT_MARGIN: Final = 0.1
_TINY: Final = 1e-300  # a range below it has no round numbers among the floats


@dataclass(frozen=True)
class Axis:
    """A range of values, and (value, label) of its ticks."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]

    def share(self, value: float) -> float:
        """Return where `value` is in the range: 0 at its low end, 1 at its high end."""
        return (value - self.low) / (self.high - self.low)


def value_axis(values: Sequence[float], show_value: Callable[[float], str] = show) -> Axis:
    """Return the axis of finite values. It starts at 0, unless that would flatten the curve.

    Values that are all equal get one tick, at their value.
    """
    low, high = min(values), max(values)
    if high - low <= max(1e-9 * max(abs(low), abs(high)), _TINY):
        margin = _FLAT_MARGIN * abs(high) or 1.0
        return Axis(low - margin, high + margin, ((low, show_value(low)),))
    if 0 <= low <= high / 2:
        low = 0.0
    marks = round_values(low, high)
    return Axis(marks[0], marks[-1], labelled(marks, show_value))


def step_axis(steps: Sequence[float]) -> Axis:
    """Return the axis of steps or epochs, whose ticks are whole numbers within the range."""
    low, high = min(steps), max(steps)
    if low == high:
        return Axis(low - 1, high + 1, ((low, show_short(low)),))
    marks = [
        mark for mark in round_values(low, high, max_steps=6, whole=True) if low <= mark <= high
    ]
    return Axis(low, high, labelled(marks, show_short))


def round_values(
    low: float, high: float, *, max_steps: int = 5, whole: bool = False
) -> tuple[float, ...]:
    """Return round numbers from `low` to `high`, in steps of 1, 2 or 5 times a power of ten.

    Args:
      low: the lowest value; the first number is not above it.
      high: the highest value; the last number is not below it.
      max_steps: the most steps within the range.
      whole: whether the step is at least 1.
    """
    span = high - low
    if not span > 0 or not math.isfinite(span):
        return (low,)
    unit = 10.0 ** math.floor(math.log10(span / max_steps))
    step = next(unit * by for by in (1, 2, 5, 10) if span / (unit * by) <= max_steps)
    step = max(step, 1.0) if whole else step
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    digits = 2 - math.floor(math.log10(step))
    return tuple(round(index * step, digits) for index in range(first, last + 1))


def labelled(
    values: Sequence[float], show_value: Callable[[float], str]
) -> tuple[tuple[float, str], ...]:
    """Return values with labels that differ, with as many digits as that takes."""
    labels = [show_value(value) for value in values]
    for digits in range(5, 18):
        if len(set(labels)) == len(labels):
            break
        labels = [f"{value:.{digits}g}" for value in values]
    return tuple(zip(values, labels, strict=True))


def show_short(value: float) -> str:
    """Return a figure for an axis: ``2,500``, ``40k``, ``1.5M``."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= max(unit, 1e4):
            return f"{value / unit:.4g}{name}"
    return show(value)
