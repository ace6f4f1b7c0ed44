"""Numbers for charts: thinned and smoothed series, formatted figures. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

# A curve is smoothed over one of so many parts of its points.
SMOOTHED_PARTS: Final = 15

Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """One curve: (x, y) in ascending x.

    `style` is ``line``, ``dots``, ``faint``, or ``smoothed``: the points faint, and their moving
    average as a line. `colour` is its number in the style sheet; default: its place in the chart.
    """

    name: str
    points: tuple[Point, ...]
    style: str = "line"
    colour: int | None = None


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


def smooth(points: Sequence[Point]) -> tuple[Point, ...]:
    """Return the mean of the points around each point; few points stay as they are.

    The window is centred, so that the smoothed curve does not lag behind; it is shorter, but still
    centred, near the ends.
    """
    reach = len(points) // SMOOTHED_PARTS // 2
    sums = [0.0, *accumulate(y for _, y in points)]
    smoothed = []
    for index, (x, y) in enumerate(points):
        side = min(reach, index, len(points) - 1 - index)
        first, end = index - side, index + side + 1
        smoothed.append((x, (sums[end] - sums[first]) / (end - first) if side else y))
    return tuple(smoothed)


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
