"""Columns: the values of many records by feature, as numpy arrays.

A source that holds its records as columns hands blocks of them to the shard writer as they are;
`tenfold.data.writing.encode_columns` makes the same bytes of them as the encoder of single
records.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import prod
from typing import Any, Final

import numpy as np

from tenfold.data.format.example import Shape

# Each kind's dtype of `values`.
_DTYPES: Final = {"float": np.float32, "int64": np.int64, "bytes": np.uint8, "image": np.uint8}


@dataclass(frozen=True, eq=False)
class Column:
    """The values of one feature in n records.

    Attributes:
      kind: ``float``, ``int64``, ``bytes``, or ``image``: bytes among which those that begin as
        an encoded image are checked, as the schema tells images from other bytes.
      values: Of numbers float32 or int64 [n, *shape], or all values in a row, [sum(lengths)],
        where their number varies. Of bytes the data of all items in a row, uint8 [bytes].
      shape: The shape of one record's values: () for a scalar, (None,) for a list whose length
        varies.
      lengths: Values of each record, int64 [n], where shape is (None,); else None.
      offsets: Of bytes the begin of each item in `values`, and the end of the last, int64
        [items + 1]; None for numbers.
      present: Which records have the feature, bool [n]; None for all. Absent records hold
        placeholders, of any value and length.
    """

    kind: str
    values: np.ndarray
    shape: Shape = ()
    lengths: np.ndarray | None = None
    offsets: np.ndarray | None = None
    present: np.ndarray | None = None

    def __post_init__(self) -> None:
        assert self.values.dtype == _DTYPES[self.kind], (self.kind, self.values.dtype)
        assert (self.offsets is not None) == (self.kind in ("bytes", "image"))
        assert (self.lengths is not None) == (None in self.shape)
        assert None not in self.shape or self.shape == (None,)

    def __len__(self) -> int:
        """Return the number of records."""
        if self.lengths is not None:
            return len(self.lengths)
        if self.offsets is not None:
            return (len(self.offsets) - 1) // max(1, self._items_per_record)
        return len(self.values)

    @property
    def _items_per_record(self) -> int:
        return prod(size or 0 for size in self.shape)

    def counts(self) -> np.ndarray:
        """Return the number of values (numbers, or items of bytes) of each record, int64 [n]."""
        if self.lengths is not None:
            return self.lengths
        return np.full(len(self), self._items_per_record, np.int64)

    def is_present(self) -> np.ndarray:
        """Return which records have the feature, bool [n]."""
        return np.ones(len(self), bool) if self.present is None else self.present

    def compress(self, kept: np.ndarray) -> "Column":
        """Return the column of those records that `kept`, bool [n], selects."""
        values, lengths, offsets = self.values, self.lengths, self.offsets
        items = np.repeat(kept, self.counts()) if self.shape != () else kept
        if offsets is not None:
            sizes = np.diff(offsets)
            values = values[offsets[0] : offsets[-1]][np.repeat(items, sizes)]
            offsets = np.concatenate([[0], np.cumsum(sizes[items])])
        else:
            values = values[items if lengths is not None else kept]
        lengths = None if lengths is None else lengths[kept]
        present = None if self.present is None else self.present[kept]
        return replace(self, values=values, lengths=lengths, offsets=offsets, present=present)

    def row(self, index: int) -> Any:
        """Return one record's value: a number, bytes, an array or a list; None if absent.

        For tests and messages; slow.
        """
        if self.present is not None and not self.present[index]:
            return None
        end = int(self.counts()[: index + 1].sum())
        begin = end - int(self.counts()[index])
        if self.offsets is None:
            return self.values[begin:end] if self.lengths is not None else self.values[index]
        data = self.values.tobytes()
        bounds = self.offsets[begin : end + 1].tolist()
        items = [data[a:b] for a, b in pairwise(bounds)]
        return items[0] if self.shape == () else items


@dataclass(frozen=True, eq=False)
class Columns:
    """The features of n records as columns by name.

    Attributes:
      num_records: n.
      columns: A column of n records for each feature, by name.
      unusable: The reasons why single records cannot be used, by their index among the n. Their
        values are placeholders.
    """

    num_records: int
    columns: Mapping[str, Column]
    unusable: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, column in self.columns.items():
            assert len(column) == self.num_records, (name, len(column), self.num_records)

    @property
    def has_images(self) -> bool:
        """Whether a column may hold encoded images."""
        return any(column.kind == "image" for column in self.columns.values())


def number_column(values: np.ndarray, present: np.ndarray | None = None) -> Column:
    """Return the column of an array of floats, integers or booleans, [n, *shape].

    Raises:
      ValueError: a value is no 64-bit integer, or the dtype is not of numbers.
    """
    return Column(*_typed(values), shape=tuple(values.shape[1:]), present=present)


def list_column(
    values: np.ndarray, lengths: np.ndarray, present: np.ndarray | None = None
) -> Column:
    """Return the column of lists of numbers: `lengths`[i] of `values` for record i.

    Raises:
      ValueError: as `number_column`.
    """
    kind, values = _typed(values)
    return Column(kind, values, (None,), lengths.astype(np.int64), present=present)


def bytes_column(
    items: Sequence[bytes | str],
    *,
    kind: str = "bytes",
    shape: Shape = (),
    lengths: np.ndarray | None = None,
    present: np.ndarray | None = None,
) -> Column:
    """Return the column of items of bytes or text; the arguments are those of `Column`."""
    data = [item.encode() if isinstance(item, str) else item for item in items]
    offsets = np.zeros(len(data) + 1, np.int64)
    np.cumsum([len(item) for item in data], out=offsets[1:])
    values = np.frombuffer(b"".join(data), np.uint8)
    return Column(kind, values, shape, lengths, offsets, present)


def _typed(values: np.ndarray) -> tuple[str, np.ndarray]:
    """Return the kind of an array of numbers, and the array in the kind's dtype."""
    code = values.dtype.kind
    if code == "f" or values.dtype.name == "bfloat16":
        with np.errstate(over="ignore"):
            return "float", values.astype(np.float32, copy=False)
    if code not in "iub":
        raise ValueError(f"an array of {values.dtype}: convert it to numbers")
    if values.dtype == np.uint64 and len(values) and values.max() > np.iinfo(np.int64).max:
        raise ValueError(f"holds {values.max()}, which is no 64-bit integer")
    return "int64", values.astype(np.int64, copy=False)
