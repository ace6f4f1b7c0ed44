"""The differences of two data sets: their features, classes, ranges and distributions."""

import math
from collections.abc import Iterator, Sequence
from typing import Final

from tenfold.data.format.manifest import LABEL, Feature, Manifest, Split
from tenfold.data.format.schema import describe_feature
from tenfold.data.format.statistics.feature_statistics import FeatureStatistics, shift
from tenfold.data.integrity.show_statistics import show_number

# Distributions, and sizes of text and images, that differ by less than this count as equal.
MIN_SHIFT: Final = 0.1
MIN_GROWTH: Final = 1.25
# Two samples of one distribution of n and m values differ by less than this × √(1/n + 1/m) in
# 99 of 100 cases (Kolmogorov-Smirnov); of the numbers of a split about 1,000 are compared.
_NOISE: Final = 1.63
_COMPARED: Final = 1_000
_MAX_LISTED: Final = 5


def compare_sets(first: Manifest, second: Manifest, split: Split, other: Split) -> Iterator[str]:
    """Yield a line for each difference of two data sets.

    Args:
      first: the manifest of the set to look at.
      second: the manifest of the one to compare with.
      split: the split of the first.
      other: the split of the second.
    """
    yield from _schema(first, second)
    yield from _classes(first, second)
    if split.label_counts and other.label_counts:
        yield from _class_shares(first, split, other)
    if split.statistics is None or other.statistics is None:
        missing = "first" if split.statistics is None else "second"
        yield f"statistics: the {missing} data set has none: write it again to compare values"
        return
    for feature in split.statistics.features:
        against = other.statistics.feature(feature.name)
        kinds = (first.feature(feature.name), second.feature(feature.name))
        if against is not None and kinds[0] and kinds[1] and kinds[0].kind == kinds[1].kind:
            if feature.name != LABEL or not (split.label_counts and other.label_counts):
                noise = noise_of(split.statistics.records, other.statistics.records)
                yield from _values(feature, against, noise=noise)
            yield from _missing(
                feature, against, split.statistics.records, other.statistics.records
            )


def noise_of(first: int, second: int) -> float:
    """Return the difference of two samples of so many records that means nothing."""
    counts = (max(1, min(first, _COMPARED)), max(1, min(second, _COMPARED)))
    return max(MIN_SHIFT, _NOISE * math.sqrt(sum(1 / count for count in counts)))


def _schema(first: Manifest, second: Manifest) -> Iterator[str]:
    ours, theirs = ({f.name: f for f in m.features} for m in (first, second))
    for name in sorted(ours.keys() | theirs.keys()):
        pair = ours.get(name), theirs.get(name)
        if pair[0] != pair[1]:
            yield f"{name}: {_described(pair[0])}, against {_described(pair[1])}"


def _described(feature: Feature | None) -> str:
    return "no such feature" if feature is None else describe_feature(feature)


def _classes(first: Manifest, second: Manifest) -> Iterator[str]:
    ours, theirs = first.label_names, second.label_names
    if ours == theirs:
        if not ours and first.num_classes != second.num_classes:
            yield f"classes: {first.num_classes:,}, against {second.num_classes:,}"
        return
    for words, names in (
        ("only here", [name for name in ours if name not in theirs]),
        ("only there", [name for name in theirs if name not in ours]),
    ):
        if names:
            yield f"classes {words}: {_listed(names)}"
    common = [name for name in ours if name in theirs]
    moved = [name for name in common if ours.index(name) != theirs.index(name)]
    if moved:
        name = moved[0]
        yield (
            f"classes with other numbers: {len(moved):,}, as '{name}', {ours.index(name)} against "
            f"{theirs.index(name)}: a model of one set misreads the other; --classes=FILE fixes "
            "the order"
        )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_LISTED:,} more" if len(names) > _MAX_LISTED else ""
    return ", ".join(f"'{name}'" for name in names[:_MAX_LISTED]) + more


def _class_shares(manifest: Manifest, split: Split, other: Split) -> Iterator[str]:
    """Yield the class whose share differs most, if the shares of all differ enough."""
    counts = (split.label_counts, other.label_counts)
    size = max(map(len, counts))
    shares = [
        [(found[label] if label < len(found) else 0) / max(sum(found), 1) for label in range(size)]
        for found in counts
    ]
    changes = [abs(a - b) for a, b in zip(*shares, strict=True)]
    records = [sum(found) for found in counts]
    # The noise of a sum over classes grows with their number.
    noise = noise_of(*records) * max(1.0, math.sqrt(size) / 4)
    if sum(changes) / 2 > noise:
        label = changes.index(max(changes))
        name = manifest.label_names[label] if label < len(manifest.label_names) else str(label)
        yield (
            f"shares of the classes: {100 * sum(changes) / 2:.0f} % of the records differ; "
            f"class '{name}' has {100 * shares[0][label]:.1f} %, against "
            f"{100 * shares[1][label]:.1f} %"
        )


def _values(first: FeatureStatistics, second: FeatureStatistics, *, noise: float) -> Iterator[str]:
    distance = shift(first, second)
    if distance is not None and distance > noise:
        yield (
            f"{first.name}: the distribution differs by {100 * distance:.0f} %"
            f"{_means(first, second)}"
        )
    else:
        yield from _ranges(first, second)
    for what, ours, theirs in (
        ("heights", first.height, second.height),
        ("widths", first.width, second.width),
    ):
        if ours and theirs and ours != theirs:
            yield (
                f"{first.name}: {what} of {ours[0]:,} to {ours[1]:,} pixels, against "
                f"{theirs[0]:,} to {theirs[1]:,}"
            )
    if first.length and second.length:
        means = sorted((first.length[1], second.length[1]))
        if means[1] > MIN_GROWTH * max(means[0], 1):
            what = "values" if first.mean is not None else "bytes"
            yield (
                f"{first.name}: {first.length[1]:,.4g} {what} a record, against "
                f"{second.length[1]:,.4g}"
            )


def _means(first: FeatureStatistics, second: FeatureStatistics) -> str:
    if first.mean is None or second.mean is None:
        return ""
    return f"; mean {show_number(first.mean)}, against {show_number(second.mean)}"


def _ranges(first: FeatureStatistics, second: FeatureStatistics) -> Iterator[str]:
    """Yield the ranges if one reaches far beyond the other: by more than its own half."""
    ranges = []
    for found in (first, second):
        if found.minimum is None or found.maximum is None:
            return
        ranges.append((found.minimum, found.maximum))
    span = min(high - low for low, high in ranges)
    beyond = max(abs(ranges[0][0] - ranges[1][0]), abs(ranges[0][1] - ranges[1][1]))
    if beyond > span / 2:
        (low, high), (other_low, other_high) = ranges
        yield (
            f"{first.name}: from {show_number(low)} to {show_number(high)}, against "
            f"{show_number(other_low)} to {show_number(other_high)}"
        )


def _missing(
    first: FeatureStatistics, second: FeatureStatistics, records: int, other_records: int
) -> Iterator[str]:
    shares = (first.missing / max(records, 1), second.missing / max(other_records, 1))
    if abs(shares[0] - shares[1]) > MIN_SHIFT or (shares[0] > 0) != (shares[1] > 0):
        yield (
            f"{first.name}: missing in {100 * shares[0]:.1f} % of the records, against "
            f"{100 * shares[1]:.1f} %"
        )
