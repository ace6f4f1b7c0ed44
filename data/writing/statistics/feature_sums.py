"""Sums over the values of one feature: moments, ranges, frequent and different values."""

import math
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from tenfold.data.format.statistics.feature_statistics import (
    MAX_TEXT,
    MAX_TOP,
    NUM_QUANTILES,
    FeatureStatistics,
)
from tenfold.data.format.tfrecord import fingerprint64

if TYPE_CHECKING:
    import numpy as np

# Values are counted one by one while there are no more different ones.
_MAX_COUNTED: Final = 256
# The smallest hashes kept, whose spread tells the number of different values (± 1/√256).
_MAX_HASHES: Final = 256
# A list of numbers, or an array [n]: lists spare small writes the import of numpy.
Numbers: TypeAlias = "list[Any] | np.ndarray"


@dataclass
class Moments:
    """Count, mean, squared deviation and range of numbers."""

    count: int = 0
    mean: float = 0.0
    deviation: float = 0.0
    low: float = math.inf
    high: float = -math.inf

    def add(self, values: "Numbers") -> None:
        """Add numbers, all finite."""
        if not len(values):
            return
        if isinstance(values, list):
            mean = math.fsum(values) / len(values)
            deviation = math.fsum([(value - mean) ** 2 for value in values])
            low, high = float(min(values)), float(max(values))
        else:
            mean = float(values.mean(dtype="f8"))
            deviation = float(values.var(dtype="f8")) * values.size
            low, high = float(values.min()), float(values.max())
        self.merge(Moments(len(values), mean, deviation, low, high))

    def merge(self, other: "Moments") -> None:
        """Add the numbers of `other` (Chan, Golub and LeVeque, 1979)."""
        total = self.count + other.count
        if not other.count:
            return
        step = other.mean - self.mean
        self.mean += step * other.count / total
        self.deviation += other.deviation + step * step * self.count * other.count / total
        self.count = total
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)


@dataclass
class FeatureSums:
    """The sums of one feature.

    Attributes:
      max_kept: how many numbers to keep for the quantiles.
      missing: records without the feature.
      not_finite: numbers that are NaN or infinite.
      numbers: the finite numbers.
      lengths: the number of values a record; of bytes the number of bytes.
      kept: the first numbers.
      counted: records of each value, of features with one value a record; None if there are more
        than _MAX_COUNTED values, or none that can be counted.
      hashes: the smallest hashes of these values, ascending.
      heights: the heights of images; `widths` their widths.
    """

    max_kept: int = 0
    missing: int = 0
    not_finite: int = 0
    numbers: Moments = field(default_factory=Moments)
    lengths: Moments = field(default_factory=Moments)
    kept: list[float] = field(default_factory=list)
    counted: dict[str, int] | None = field(default_factory=dict)
    hashes: list[int] = field(default_factory=list)
    heights: Moments = field(default_factory=Moments)
    widths: Moments = field(default_factory=Moments)

    def add_numbers(self, values: "Numbers", *, scalars: bool) -> None:
        """Add numbers in a row; `scalars` says that each is one record's only value."""
        finite = _finite(values)
        self.not_finite += len(values) - len(finite)
        self.numbers.add(finite)
        if len(self.kept) < self.max_kept:
            # The first ones, which the shuffle of the records has drawn at random.
            self.kept += map(float, finite[: self.max_kept - len(self.kept)])
        if not scalars:
            self.counted = None
            return
        self._add_hashes(_hash_numbers(finite))
        if self.counted is not None:
            # The first values alone show that most columns of floats have too many to count.
            if len(set(map(float, finite[: 4 * _MAX_COUNTED]))) > _MAX_COUNTED:
                self.counted = None
                return
            self._count(_count_numbers(finite))

    def add_items(self, items: Sequence[bytes], *, scalars: bool, image: bool) -> None:
        """Add texts, bytes or encoded images."""
        self.lengths.add(list(map(len, items)))
        if image or not scalars:
            self.counted = None
            return
        self._add_hashes(list(map(fingerprint64, items)))
        if self.counted is not None:
            if any(len(item) > MAX_TEXT for item in items):
                self.counted = None
                return
            found = Counter(items)
            self._count({k.decode("utf-8", "backslashreplace"): n for k, n in found.items()})

    def _count(self, found: Mapping[str, int]) -> None:
        assert self.counted is not None
        for value, count in found.items():
            self.counted[value] = self.counted.get(value, 0) + count
        if len(self.counted) > _MAX_COUNTED:
            self.counted = None

    def _add_hashes(self, hashes: "Numbers") -> None:
        """Keep the smallest ones of the hashes so far and of `hashes`."""
        if len(self.hashes) == _MAX_HASHES:
            if isinstance(hashes, list):
                hashes = [number for number in hashes if number < self.hashes[-1]]
            else:
                hashes = hashes[hashes < hashes.dtype.type(self.hashes[-1])]
        if not isinstance(hashes, list) and len(hashes) > _MAX_HASHES:
            import numpy as np

            hashes = np.unique(hashes)[:_MAX_HASHES]
        if len(hashes):
            self.hashes = sorted({*self.hashes, *map(int, hashes)})[:_MAX_HASHES]

    def merge(self, other: "FeatureSums") -> None:
        """Add the sums of the shard that comes next."""
        self.missing += other.missing
        self.not_finite += other.not_finite
        for name in ("numbers", "lengths", "heights", "widths"):
            getattr(self, name).merge(getattr(other, name))
        self.kept += other.kept
        if self.counted is None or other.counted is None:
            self.counted = None
        else:
            self._count(other.counted)
        self._add_hashes(other.hashes)

    def result(self, name: str) -> FeatureStatistics:
        """Return the statistics."""
        numbers, some = self.numbers, self.numbers.count > 0
        distinct, exact = None, True
        if self.counted is not None:
            distinct, exact = len(self.counted), True
        elif self.hashes:
            distinct, exact = _estimate(self.hashes)
        return FeatureStatistics(
            name=name,
            missing=self.missing,
            not_finite=self.not_finite,
            minimum=numbers.low if some else None,
            maximum=numbers.high if some else None,
            mean=_rounded(numbers.mean, numbers) if some else None,
            std=_rounded(_std(numbers), numbers) if some else None,
            quantiles=_quantiles(self.kept, numbers) if some else (),
            distinct=distinct or None,
            distinct_exact=exact,
            top=_top(self.counted or {}),
            length=_range_and_mean(self.lengths),
            height=_range(self.heights),
            width=_range(self.widths),
        )


def _finite(values: "Numbers") -> "Numbers":
    """Return the numbers that are neither NaN nor infinite; -0.0 becomes 0.0."""
    if isinstance(values, list):
        return [value + 0 for value in values if math.isfinite(value)]
    if values.dtype.kind != "f":
        return values
    import numpy as np

    sound = np.isfinite(values)
    return (values if sound.all() else values[sound]) + values.dtype.type(0)


def _count_numbers(values: "Numbers") -> Mapping[str, int]:
    """Return the number of times that each number occurs."""
    if isinstance(values, list):
        return {str(value): count for value, count in Counter(values).items()}
    import numpy as np

    distinct, counts = np.unique(values, return_counts=True)
    return dict(zip(map(str, distinct.tolist()), counts.tolist(), strict=True))


_WORD: Final = 2**64 - 1
_GOLDEN: Final = 0x9E3779B97F4A7C15
_STEPS: Final = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1))


def _hash_numbers(values: "Numbers") -> "Numbers":
    """Return a 64-bit hash of each number (the finalizer of SplitMix64)."""
    if isinstance(values, list):
        return list(map(_hash_number, values))
    import numpy as np

    kind = "i8" if values.dtype.kind in "iub" else "f8"
    bits = np.ascontiguousarray(values, kind).view(np.uint64) + np.uint64(_GOLDEN)
    for shift, factor in _STEPS:
        bits = (bits ^ (bits >> np.uint64(shift))) * np.uint64(factor)
    return bits


def _hash_number(value: int | float) -> int:
    packed = struct.pack("<q" if isinstance(value, int) else "<d", value)
    bits = int.from_bytes(packed, "little") + _GOLDEN & _WORD
    for shift, factor in _STEPS:
        bits = (bits ^ bits >> shift) * factor & _WORD
    return bits


def _estimate(hashes: Sequence[int]) -> tuple[int, bool]:
    """Return the number of different values of which these are the smallest hashes.

    With k of them kept, the k-th is at about k / (n + 1) of the range (Bar-Yossef and others,
    2002).
    """
    if len(hashes) < _MAX_HASHES:
        return len(hashes), True
    return round((_MAX_HASHES - 1) / (hashes[-1] / 2**64)), False


def _quantiles(kept: Sequence[float], numbers: Moments) -> tuple[float, ...]:
    """Return the smallest number, the quantiles of those kept, and the largest."""
    ordered = sorted(kept)
    inner = []
    for step in range(1, NUM_QUANTILES - 1):
        whole, part = divmod((len(ordered) - 1) * step, NUM_QUANTILES - 1)
        low, high = ordered[whole], ordered[min(whole + 1, len(ordered) - 1)]
        inner.append(low + (high - low) * part / (NUM_QUANTILES - 1))
    return (numbers.low, *inner, numbers.high)


def _top(counted: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    ordered = sorted(counted.items(), key=lambda entry: (-entry[1], entry[0]))
    return tuple(ordered[:MAX_TOP])


def _std(moments: Moments) -> float:
    return math.sqrt(max(moments.deviation, 0) / moments.count)


def _rounded(value: float, moments: Moments) -> float:
    """Round to nine digits of the largest number: the last ones depend on the order of sums."""
    scale = max(abs(moments.low), abs(moments.high))
    return round(value, 8 - math.floor(math.log10(scale))) if scale else value


def _range(moments: Moments) -> tuple[int, int] | None:
    return (int(moments.low), int(moments.high)) if moments.count else None


def _range_and_mean(moments: Moments) -> tuple[int, float, int] | None:
    if not moments.count:
        return None
    return int(moments.low), round(moments.mean, 3), int(moments.high)
