"""Numbers for charts: thinned series, the ticks of an axis, formatted figures. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """One curve: (x, y) in ascending x. `style` is ``line``, ``faint`` or ``dots``."""

    name: str
    points: tuple[Point, ...]
    style: str = "line"


def finite(points: Sequence[Point]) -> tuple[Point, ...]:
    """Return the points whose y is neither infinite nor NaN."""
    return tuple(point for point in points if math.isfinite(point[1]))


def thin(points: Sequence[Point], *, max_points: int = 600) -> tuple[Point, ...]:
    """Return about `max_points` of the points: the lowest and the highest of each stretch.

    The spike of a single step stays visible, however long the run is.
    """
    if len(points) <= max_points:
        return tuple(points)
    stretch = -(-len(points) // (max_points // 2))
    kept: list[Point] = []
    for first in range(0, len(points), stretch):
        part = points[first : first + stretch]
        ends = {min(part, key=lambda p: p[1]), max(part, key=lambda p: p[1])}
        kept += sorted(ends)
    return tuple(kept)


def ticks(low: float, high: float, *, max_steps: int = 5) -> tuple[float, ...]:
    """Return round numbers from `low` to `high`, in steps of 1, 2 or 5 times a power of ten."""
    span = high - low
    if not span > 0 or not math.isfinite(span):
        return (low,)
    unit = 10.0 ** math.floor(math.log10(span / max_steps))
    step = next(unit * by for by in (1, 2, 5, 10) if span / (unit * by) <= max_steps)
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return tuple(round(index * step, 12) for index in range(first, last + 1))


def show(value: float) -> str:
    """Return a figure as text: four significant digits, thousands grouped."""
    if not math.isfinite(value):
        return str(value)
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def percents(values: Sequence[float]) -> list[int]:
    """Return the share of each value in whole percent, so that the shares sum to 100.

    The largest remainder method: shares are rounded down, and the missing percents go to the
    largest remainders, one each.
    """
    whole = sum(values) or 1
    exact = [100 * value / whole for value in values]
    rounded = [int(share) for share in exact]
    missing = round(sum(exact)) - sum(rounded)
    by_remainder = sorted(range(len(exact)), key=lambda index: rounded[index] - exact[index])
    for index in by_remainder[:missing]:
        rounded[index] += 1
    return rounded
