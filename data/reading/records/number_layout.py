"""Numbers of many serialized Examples at once, as numpy arrays.

Examples of the same length, from the same writer, differ only in the bytes of their values. From
one of them a layout is made: which bytes are keys, lengths and names, and where the values lie.
All others that agree with its fixed bytes are decoded by slicing a matrix of bytes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Final

import numpy as np

from tenfold.data.format.example import read_varint
from tenfold.data.format.manifest import Feature

DTYPES: Final[Mapping[str, Any]] = {"float": np.float32, "int64": np.int64}

# Layouts that are remembered for one length. Where whole numbers of many sizes give more of them,
# TensorFlow parses the rest faster.
_MAX_LAYOUTS: Final = 8
# New layouts that are tried in one call, each for at least this many Examples.
_MIN_ROWS: Final = 8

_FEATURE_OF: Final = {"float": 2, "int64": 3}


def fixed_shape(feature: Feature, count: int) -> tuple[int, ...]:
    """Return the shape of `count` values of a feature of a fixed shape."""
    return (count, *(size or 0 for size in feature.shape))


@dataclass(frozen=True, eq=False)
class _Values:
    """Where the values of a feature lie: of floats one span, of whole numbers one span each."""

    feature: Feature
    spans: tuple[tuple[int, int], ...]

    def decode(self, rows: np.ndarray) -> np.ndarray:
        """Return the values of Examples, uint8 [n, length], as [n, *shape]."""
        shape = fixed_shape(self.feature, len(rows))
        if self.feature.kind == "float":
            if not self.spans:
                return np.zeros(shape, np.float32)
            ((begin, end),) = self.spans
            packed = np.ascontiguousarray(rows[:, begin:end])
            return packed.view("<f4").astype(np.float32, copy=False).reshape(shape)
        numbers = np.zeros((len(rows), len(self.spans)), np.uint64)
        for index, (begin, end) in enumerate(self.spans):
            for digit in range(end - begin):
                bits = (rows[:, begin + digit] & 0x7F).astype(np.uint64)
                numbers[:, index] |= bits << np.uint64(7 * digit)
        return numbers.view(np.int64).reshape(shape)


@dataclass(frozen=True, eq=False)
class _Layout:
    """The layout of Examples of one length: `mask` selects the bits that all share."""

    mask: np.ndarray
    fixed: np.ndarray
    values: tuple[_Values, ...]

    def fits(self, rows: np.ndarray) -> np.ndarray:
        """Return which Examples, uint8 [n, length], have the layout, bool [n]."""
        fitting: np.ndarray = ((rows & self.mask) == self.fixed).all(axis=1)
        return fitting


class NumberDecoder:
    """Decodes features that are numbers of fixed shapes. Safe for threads.

    Args:
      features: the features; other features of an Example are not decoded.
    """

    def __init__(self, features: Sequence[Feature]) -> None:
        self._features = tuple(features)
        # Tuples are replaced as a whole, so that other threads see the old or the new one.
        self._layouts: dict[int, tuple[_Layout, ...]] = {}

    def decode(
        self,
        data: np.ndarray,
        begins: np.ndarray,
        lengths: np.ndarray,
        out: Mapping[str, np.ndarray],
    ) -> np.ndarray:
        """Decode Examples into arrays.

        Args:
          data: bytes that the Examples lie in, uint8.
          begins, lengths: where each begins and its bytes, int64 [n].
          out: takes the values of each feature, [n, *shape].

        Returns:
          The indices of the Examples that could not be decoded so; their values are not set.
        """
        left = []
        for length in np.unique(lengths).tolist():
            chosen = np.flatnonzero(lengths == length)
            rows = _rows(data, begins[chosen], length)
            left.append(self._decode_equal(rows, chosen, out))
        return np.sort(np.concatenate(left)) if left else np.zeros(0, np.int64)

    def _decode_equal(
        self, rows: np.ndarray, chosen: np.ndarray, out: Mapping[str, np.ndarray]
    ) -> np.ndarray:
        """Decode Examples of one length, uint8 [n, length]; return those of `chosen` left."""
        for layout in self._matching(rows):
            fits = layout.fits(rows)
            if fits.all():
                for values in layout.values:
                    out[values.feature.name][chosen] = values.decode(rows)
                return chosen[:0]
            for values in layout.values:
                out[values.feature.name][chosen[fits]] = values.decode(rows[fits])
            rows, chosen = rows[~fits], chosen[~fits]
        return chosen

    def _matching(self, rows: np.ndarray) -> Iterator[_Layout]:
        """Yield layouts to try, the known ones first; then those of Examples that are left."""
        length = rows.shape[1]
        known = self._layouts.get(length, ())
        left = np.ones(len(rows), bool)
        for layout in known:
            yield layout
            left &= ~layout.fits(rows)
        while left.any() and len(known) < _MAX_LAYOUTS:
            if known and left.sum() < _MIN_ROWS:
                return
            found = layout_of(rows[int(left.argmax())].tobytes(), self._features)
            if found is None:
                return
            known = (*known, found)
            self._layouts[length] = known
            yield found
            left &= ~found.fits(rows)


def _rows(data: np.ndarray, begins: np.ndarray, length: int) -> np.ndarray:
    """Return the bytes of Examples of one length, uint8 [n, length]; a view if evenly spaced."""
    steps = np.diff(begins)
    if len(steps) and int(steps[0]) >= length and bool((steps == steps[0]).all()):
        whole = data[int(begins[0]) : int(begins[-1]) + length]
        shape, strides = (len(begins), length), (int(steps[0]), 1)
        return np.lib.stride_tricks.as_strided(whole, shape, strides, writeable=False)
    gathered: np.ndarray = data[begins[:, None] + np.arange(length)]
    return gathered


def layout_of(example: bytes, features: Sequence[Feature]) -> _Layout | None:
    """Return the layout of an Example; None if it lacks a feature, or has it in another form."""
    try:
        spans = dict(_feature_spans(example))
    except (ValueError, _Unusual):
        return None
    mask = np.full(len(example), 0xFF, np.uint8)
    values = []
    for feature in features:
        number, begin, end = spans.get(feature.name.encode(), (0, 0, 0))
        if number != _FEATURE_OF[feature.kind]:
            return None
        size = prod(size or 0 for size in feature.shape)
        if feature.kind == "float":
            found = [(begin, end)] if end > begin else []
            if end - begin != 4 * size:
                return None
            mask[begin:end] = 0
        else:
            found = list(_varint_spans(example, begin, end))
            if len(found) != size:
                return None
            mask[begin:end] = 0x80  # whether the number goes on
        values.append(_Values(feature, tuple(found)))
    fixed = np.frombuffer(example, np.uint8) & mask
    return _Layout(mask, fixed, tuple(values))


class _Unusual(Exception):
    """The Example is in a form that Tenfold and TensorFlow do not write."""


def _feature_spans(example: bytes) -> Iterator[tuple[bytes, tuple[int, int, int]]]:
    """Yield each feature's name, and (field of its kind, begin, end) of its packed numbers."""
    names = set()
    for _, begin, end in _fields(example, 0, len(example), (1,)):
        for _, entry, entry_end in _fields(example, begin, end, (1,)):
            parts = {number: span for number, *span in _fields(example, entry, entry_end, (1, 2))}
            name_begin, name_end = parts.get(1, (0, 0))
            name = example[name_begin:name_end]
            if name in names:
                raise _Unusual
            names.add(name)
            value_begin, value_end = parts.get(2, (0, 0))
            lists = list(_fields(example, value_begin, value_end, (1, 2, 3)))
            if len(lists) != 1:
                raise _Unusual
            ((kind, list_begin, list_end),) = lists
            packed = [] if kind == 1 else list(_fields(example, list_begin, list_end, (1,)))
            if len(packed) > 1:
                raise _Unusual
            _, first, last = packed[0] if packed else (1, 0, 0)
            yield name, (kind, first, last)


def _fields(
    data: bytes, position: int, end: int, numbers: tuple[int, ...]
) -> Iterator[tuple[int, int, int]]:
    """Yield (number, begin, end) of length-delimited fields; any other is unusual."""
    while position < end:
        key, position = read_varint(data, position)
        length, position = read_varint(data, position)
        if key & 7 != 2 or key >> 3 not in numbers or position + length > end:
            raise _Unusual
        yield key >> 3, position, position + length
        position += length


def _varint_spans(data: bytes, begin: int, end: int) -> Iterator[tuple[int, int]]:
    position = begin
    while position < end:
        _, after = read_varint(data, position)
        yield position, after
        position = after
