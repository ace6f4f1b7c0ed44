"""The statistics of a split as a table in text."""

from collections.abc import Iterable
from typing import Final

from tenfold.data.format.manifest import LABEL, Manifest, Split
from tenfold.data.format.statistics.feature_statistics import FeatureStatistics, bins
from tenfold.data.units import format_size, plural

_BARS: Final = "▁▂▃▄▅▆▇█"
_NUM_BARS: Final = 10
_MAX_NAME: Final = 24
_SHOWN_TOP: Final = 3
_HEAD: Final = ("", "missing", "min", "mean", "max", "std", "different")


def statistics_lines(manifest: Manifest, split: Split) -> list[str]:
    """Return a head line and a table with one row a feature; nothing without statistics."""
    found = split.statistics
    if found is None or not found.features:
        return []
    whole = found.records == split.num_records
    records = plural(found.records, "record")
    of = records if whole else f"a random {records} of {split.num_records:,}"
    rows = [(*_HEAD, ""), *(_row(manifest, split, feature) for feature in found.features)]
    return [f"statistics of {split.name}, {of}", *_table(rows)]


def _table(rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Return the rows as lines: first and last column left-aligned, the others right-aligned."""
    rows = list(rows)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    lines = []
    for row in rows:
        numbers = "".join(
            f"  {cell:>{width}}" for cell, width in zip(row[1:-1], widths[1:], strict=True)
        )
        lines.append(f"  {row[0]:<{widths[0]}}{numbers}  {row[-1]}".rstrip())
    return lines


def _row(manifest: Manifest, split: Split, found: FeatureStatistics) -> tuple[str, ...]:
    name = found.name if len(found.name) <= _MAX_NAME else found.name[: _MAX_NAME - 1] + "…"
    cells = (name, f"{found.missing:,}", *_values(found), _different(found))
    return (*cells, _remarks(manifest, split, found))


def _values(found: FeatureStatistics) -> tuple[str, str, str, str]:
    """Return smallest, mean and largest value and deviation: of numbers, or of sizes in bytes."""
    if found.mean is not None:
        numbers = (found.minimum, found.mean, found.maximum, found.std)
        low, mean, high, std = ("" if n is None else show_number(n) for n in numbers)
        return low, mean, high, std
    if found.length is None:
        return "", "", "", ""
    low, mean, high = (format_size(round(size)) for size in found.length)
    return low, mean, high, ""


def show_number(number: float) -> str:
    """Return a number in up to six digits, and whole ones as such."""
    if number == int(number) and abs(number) < 1e9:
        return f"{int(number):,}"
    return f"{number:.4g}"


def _different(found: FeatureStatistics) -> str:
    if found.distinct is None:
        return ""
    return f"{found.distinct:,}" if found.distinct_exact else f"about {_rounded(found.distinct):,}"


def _rounded(number: int) -> int:
    """Return an estimate in two digits."""
    step = 10 ** max(len(str(number)) - 2, 0)
    return round(number / step) * step


def _remarks(manifest: Manifest, split: Split, found: FeatureStatistics) -> str:
    """Return what a row says besides numbers: bars, frequent values, the size of images."""
    parts = []
    if found.height and found.width:
        parts.append(f"{_range(found.height)} × {_range(found.width)} pixels")
    elif found.name == LABEL and split.label_counts:
        counts = enumerate(split.label_counts)
        most = sorted(counts, key=lambda entry: -entry[1])[:_SHOWN_TOP]
        names = manifest.label_names
        shown = [(names[label] if label < len(names) else str(label), n) for label, n in most]
        parts.append(_shares(shown, sum(split.label_counts)))
    elif found.top and found.mean is None:
        total = sum(count for _, count in found.top)
        parts.append(_shares(found.top[:_SHOWN_TOP], max(total, 1)))
    elif found.quantiles:
        parts.append(bars(found))
    if found.length and found.mean is not None:
        low, mean, high = found.length
        per_record = f"{low:,}" if low == high else f"{low:,} to {high:,}, mean {mean:.4g},"
        parts.append(f"{per_record} values a record")
    if found.not_finite:
        parts.append(f"{plural(found.not_finite, 'number')} NaN or infinite")
    return "; ".join(parts)


def _range(sizes: tuple[int, int]) -> str:
    return f"{sizes[0]:,}" if sizes[0] == sizes[1] else f"{sizes[0]:,} to {sizes[1]:,}"


def _shares(values: Iterable[tuple[str, int]], total: int) -> str:
    return ", ".join(f"{_quoted(value)} {100 * n / total:.0f} %" for value, n in values)


def _quoted(value: str) -> str:
    shown = repr(value)
    return shown if len(shown) <= _MAX_NAME else shown[: _MAX_NAME - 2] + "…'"


def bars(found: FeatureStatistics) -> str:
    """Return the distribution of numbers from the smallest to the largest, as small bars."""
    shares = bins(found.quantiles, _NUM_BARS)
    most = max(shares)
    return "".join(_BARS[round(share / most * (len(_BARS) - 1))] for share in shares)
