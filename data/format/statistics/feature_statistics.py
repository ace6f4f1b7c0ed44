"""The statistics of a split's features, as a manifest keeps them, and their comparison. Pure."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from math import isfinite
from typing import Any, Final

MAX_TOP: Final = 10
# Longer texts are not counted one by one.
MAX_TEXT: Final = 64
# Quantiles at 0 %, 5 %, … 100 %.
NUM_QUANTILES: Final = 21


@dataclass(frozen=True)
class FeatureStatistics:
    """The values of one feature in a split.

    Numbers of lists and arrays are counted one by one; those that are NaN or infinite count in
    `not_finite` only.

    Attributes:
      name: the feature's name.
      missing: the records that lack it.
      not_finite: the numbers that are NaN or infinite.
      minimum: the smallest finite number; None for text, images, and where there is none.
      maximum: the largest.
      mean: their mean.
      std: their standard deviation.
      quantiles: the smallest number, the quantiles of a sample at 5 %, 10 %, … 95 %, and the
        largest; () for none.
      distinct: the number of different values, of features with one value a record; None for
        lists, arrays and images.
      distinct_exact: whether that number is exact, not an estimate (± 6 %).
      top: the most frequent values, of features with few different ones, each with its records.
      length: smallest, mean and largest number of values a record; of text, bytes and images
        the number of bytes.
      height: smallest and largest height of the images in pixels; None for other features.
      width: the same of their width.
    """

    name: str
    missing: int = 0
    not_finite: int = 0
    minimum: float | None = None
    maximum: float | None = None
    mean: float | None = None
    std: float | None = None
    quantiles: tuple[float, ...] = ()
    distinct: int | None = None
    distinct_exact: bool = True
    top: tuple[tuple[str, int], ...] = ()
    length: tuple[int, float, int] | None = None
    height: tuple[int, int] | None = None
    width: tuple[int, int] | None = None


@dataclass(frozen=True)
class SplitStatistics:
    """The statistics of a split.

    Attributes:
      records: the records that they cover: all, or a random sample of a large split.
      features: one entry a feature, in the order of the manifest.
    """

    records: int
    features: tuple[FeatureStatistics, ...]

    def feature(self, name: str) -> FeatureStatistics | None:
        """Return the statistics of one feature, or None."""
        return next((feature for feature in self.features if feature.name == name), None)


def statistics_to_json(statistics: SplitStatistics) -> dict[str, Any]:
    """Return the statistics as a JSON object; fields with their default are left out."""
    return {
        "records": statistics.records,
        "features": [
            {
                field.name: getattr(feature, field.name)
                for field in fields(feature)
                if getattr(feature, field.name) != field.default
            }
            for feature in statistics.features
        ],
    }


def check_statistics(statistics: SplitStatistics, names: Sequence[str], num_records: int) -> None:
    """Check statistics that come from elsewhere.

    Args:
      statistics: the statistics of a split.
      names: the names of its features.
      num_records: the number of its records.

    Raises:
      ValueError: they do not fit the split, or a number is out of range.
    """
    found = [feature.name for feature in statistics.features]
    if len(set(found)) < len(found) or not set(found) <= set(names):
        raise ValueError("statistics are not of the features, each once")
    if not 0 <= statistics.records <= num_records:
        raise ValueError(f"statistics are of {statistics.records} records")
    for feature in statistics.features:
        _check_feature(feature, statistics.records)


def _check_feature(feature: FeatureStatistics, records: int) -> None:
    numbers = (feature.minimum, feature.mean, feature.maximum, feature.std, *feature.quantiles)
    counts = (feature.missing, feature.not_finite, feature.distinct or 0)
    sizes = (feature.length or (), feature.height or (), feature.width or ())
    if not (
        all(number is None or isfinite(number) for number in numbers)
        and len({number is None for number in numbers[:4]}) == 1
        and (not feature.quantiles or _ends(feature) == (feature.minimum, feature.maximum))
        and all(0 <= count < 2**63 for count in counts)
        and feature.missing <= records
        and all(0 <= size < 2**63 for found in sizes for size in found)
        and all(len(text) <= MAX_TEXT and 0 < count <= records for text, count in feature.top)
        and len(feature.top) <= MAX_TOP
        and list(feature.quantiles) == sorted(feature.quantiles)
        and len(feature.quantiles) in (0, NUM_QUANTILES)
    ):
        raise ValueError(f"the statistics of feature {feature.name!r:.60} are out of range")


def _ends(feature: FeatureStatistics) -> tuple[float, float]:
    return feature.quantiles[0], feature.quantiles[-1]


def cumulative(quantiles: Sequence[float], value: float) -> float:
    """Return the share of values up to `value`, interpolated between the quantiles."""
    position = bisect_right(quantiles, value)
    if position == 0:
        return 0.0
    if position == len(quantiles):
        return 1.0
    low, high = quantiles[position - 1], quantiles[position]
    return (position - 1 + (value - low) / (high - low)) / (len(quantiles) - 1)


def bins(quantiles: Sequence[float], count: int) -> list[float]:
    """Return the shares of the values in `count` equal steps from the smallest to the largest."""
    low, high = quantiles[0], quantiles[-1]
    if low == high:
        return [1.0]
    edges = [low + (high - low) * step / count for step in range(count)]
    reached = [0.0, *(cumulative(quantiles, edge) for edge in edges[1:]), 1.0]
    return [after - before for before, after in pairwise(reached)]


def shift(first: FeatureStatistics, second: FeatureStatistics) -> float | None:
    """Return the distance of two distributions, 0 for equal ones to 1 for disjoint ones.

    Of numbers the largest difference of the shares up to any value (Kolmogorov-Smirnov), of
    features with few values half the sum of the differences of their shares (total variation).
    None where they cannot be compared.
    """
    if _all_counted(first) and _all_counted(second):
        return _top_distance(first, second)
    if first.quantiles and second.quantiles:
        points = [*first.quantiles, *second.quantiles]
        return max(
            abs(cumulative(first.quantiles, point) - cumulative(second.quantiles, point))
            for point in points
        )
    return None


def _all_counted(statistics: FeatureStatistics) -> bool:
    return bool(statistics.top) and statistics.distinct == len(statistics.top)


def _top_distance(first: FeatureStatistics, second: FeatureStatistics) -> float:
    shares = []
    for statistics in (first, second):
        total = sum(count for _, count in statistics.top)
        shares.append({value: count / total for value, count in statistics.top})
    values = set(shares[0]) | set(shares[1])
    return sum(abs(shares[0].get(v, 0.0) - shares[1].get(v, 0.0)) for v in values) / 2
