"""The statistics of what a mixture of data sets holds. Pure."""

from collections.abc import Sequence
from math import sqrt
from typing import Any

from tenfold.data.format.statistics.feature_statistics import FeatureStatistics, SplitStatistics


def mixed_statistics(
    weighted: Sequence[tuple[SplitStatistics | None, float]],
) -> SplitStatistics | None:
    """Return the statistics of a mixture, of the features that all its parts know.

    Quantiles and frequent values are left out: those of a mixture do not follow from those of its
    parts. The number of different values is at least that of the part with the most.

    Args:
      weighted: the statistics of each part, None for unknown, and its records in a batch.
    """
    if len(weighted) == 1:
        return weighted[0][0]
    known = [(statistics, weight) for statistics, weight in weighted if statistics is not None]
    if len(known) < len(weighted):
        return None
    mixed = []
    for feature in known[0][0].features:
        parts = [(statistics.feature(feature.name), weight) for statistics, weight in known]
        found = [(part, weight) for part, weight in parts if part is not None]
        if len(found) == len(parts):
            mixed.append(_mixed_feature(found))
    return SplitStatistics(sum(statistics.records for statistics, _ in known), tuple(mixed))


def _mixed_feature(parts: Sequence[tuple[FeatureStatistics, float]]) -> FeatureStatistics:
    """Return the statistics of a feature in a mixture, from those in each part and its weight."""
    features = [feature for feature, _ in parts]
    distinct = [feature.distinct for feature in features]
    return FeatureStatistics(
        name=features[0].name,
        missing=sum(feature.missing for feature in features),
        not_finite=sum(feature.not_finite for feature in features),
        distinct=max((count for count in distinct if count is not None), default=None),
        distinct_exact=False,
        length=_mixed_length(parts),
        height=_span([feature.height for feature in features]),
        width=_span([feature.width for feature in features]),
        **_mixed_numbers(parts),
    )


def _mixed_numbers(parts: Sequence[tuple[FeatureStatistics, float]]) -> dict[str, Any]:
    """Return the fields that describe numbers; {} where a part has none.

    The variance of a mixture is the mean of the variances and the variance of the means. A part
    counts by its numbers: its records times the mean length of its lists.
    """
    found = []
    for feature, weight in parts:
        low, mean, high, std = feature.minimum, feature.mean, feature.maximum, feature.std
        if low is None or mean is None or high is None or std is None:
            return {}
        found.append((low, mean, high, std, weight * (feature.length[1] if feature.length else 1)))
    total = sum(weight for *_, weight in found)
    if not total:
        return {}
    mean = sum(weight * mean for _, mean, _, _, weight in found) / total
    square = sum(weight * (std**2 + (own - mean) ** 2) for _, own, _, std, weight in found)
    return {
        "minimum": min(low for low, *_ in found),
        "maximum": max(high for _, _, high, *_ in found),
        "mean": mean,
        "std": sqrt(square / total),
    }


def _mixed_length(
    parts: Sequence[tuple[FeatureStatistics, float]],
) -> tuple[int, float, int] | None:
    found = [(feature.length, weight) for feature, weight in parts if feature.length is not None]
    if len(found) < len(parts):
        return None
    total = sum(weight for _, weight in found)
    mean = sum(weight * length[1] for length, weight in found) / total
    return min(length[0] for length, _ in found), mean, max(length[2] for length, _ in found)


def _span(sides: Sequence[tuple[int, int] | None]) -> tuple[int, int] | None:
    found = [side for side in sides if side is not None]
    if len(found) < len(sides):
        return None
    return min(low for low, _ in found), max(high for _, high in found)
