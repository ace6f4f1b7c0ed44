"""The scanned rows of a table as a source; images that it names are read when they are written."""

import os
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np

from tenfold.data.format.columns import Column, Columns
from tenfold.data.format.example import Features
from tenfold.data.planning.layout import SourceStats
from tenfold.data.planning.splits.own_splits import (
    BROKEN,
    MISSING,
    FeatureValues,
    OwnSplit,
    code_values,
)
from tenfold.data.sources.base import Encoded, UnusableRecord
from tenfold.data.sources.features import encode_features
from tenfold.data.sources.tables.columns.column_store import ROW, ColumnStore
from tenfold.data.sources.tables.columns.table_images import NamedImages


@dataclass(frozen=True)
class TablePart:
    """The rows of one file: its path, the first row in the store, and its split, if any."""

    path: str
    first: int
    split: str = ""


class TableSource:
    """The rows of a table, in the order of its files.

    Args:
      store: The rows.
      stats: Their statistics.
      parts: The files that they come from.
      notes: Remarks on what was found and converted.
      unusable: Why single rows cannot be used, by index.
      images: The images that rows name; None for a table without.
      by_row: Features whose values vary too much, or are too large, for blocks of columns.
      is_table: Whether the options for tables apply.
    """

    def __init__(
        self,
        store: ColumnStore,
        stats: SourceStats,
        parts: Sequence[TablePart],
        *,
        notes: tuple[str, ...] = (),
        unusable: Mapping[int, str] | None = None,
        images: NamedImages | None = None,
        by_row: bool = False,
        is_table: bool = True,
    ) -> None:
        self.is_table = is_table
        self.stats = stats
        self.notes = notes
        self.concurrent_reads = images.files.concurrent_reads if images else 1
        self.splits = _own_splits(parts, stats.num_examples)
        self.optional_features = frozenset(spec.name for spec in store.specs if spec.optional)
        self._store = store
        self._parts = tuple(parts)
        self._unusable = dict(unusable or {})
        self._images = images
        self._by_row = by_row or images is not None
        self._specs = {spec.name: spec for spec in store.specs if not spec.name.startswith("\0")}

    def encoded(self, index: int) -> Encoded:
        """Return the row and its images, packed; see `Source`."""
        return encode_features(self._values(index, any_format=False))

    def features(self, index: int) -> Features:
        """Return the row's values, images as encoded bytes; see `Source`."""
        return self._values(index, any_format=True)

    def _values(self, index: int, *, any_format: bool) -> Features:
        """Return the row's values; `any_format` as in `NamedImages.read`."""
        if index in self._unusable:
            raise UnusableRecord(self._unusable[index])
        columns = self._store.take([index])
        values = {
            name: _plain(columns[name], spec.shape)
            for name, spec in self._specs.items()
            if columns[name].is_present()[0]
        }
        if self._images:
            values |= self._images.read(columns, any_format=any_format)
        return values

    def columns(self, indices: Sequence[int] | np.ndarray) -> Columns | None:
        """Return rows as columns; None if their images are to be read one by one."""
        if self._by_row:
            return None
        rows = np.asarray(indices, np.int64)
        unusable: dict[int, str] = {}
        if self._unusable:
            numbered = enumerate(rows.tolist())
            unusable = {n: self._unusable[row] for n, row in numbered if row in self._unusable}
        return Columns(len(rows), self._store.take(rows, tuple(self._specs)), unusable)

    def feature_values(self, name: str) -> FeatureValues | None:
        """Return the values of a feature that is a number or text in each row; see `Source`."""
        spec = self._specs.get(name)
        if spec is None or spec.shape != ():
            return None
        column = self._store.take(slice(None), (name,))[name]
        if spec.kind == "bytes":
            found = code_values(_texts(column))
            codes = np.array(found.codes, np.int64)
            values = found.values
        else:
            codes, values = _coded(column.values)
        if column.present is not None:
            codes[~column.present] = MISSING
        codes[list(self._unusable)] = BROKEN
        return FeatureValues(array("q", codes.tobytes()), values)

    def name(self, index: int) -> str:
        """Return the path of the first image, or the table and the number of the row."""
        if self._images:
            path = self._images.path(self._store.take([index], self._images.path_columns))
            if path:
                return os.fsdecode(path)
        firsts = [part.first for part in self._parts]
        part = self._parts[int(np.searchsorted(firsts, index, side="right")) - 1]
        row = self._store.take([index], (ROW,))[ROW].row(0)
        return f"{part.path}: row {row}"


def _own_splits(parts: Sequence[TablePart], num_rows: int) -> tuple[OwnSplit, ...]:
    """Return the splits of the parts, each of whose files follow one another; () for none."""
    counts: dict[str, int] = {}
    ends = [part.first for part in parts[1:]] + [num_rows]
    for part, end in zip(parts, ends, strict=True):
        if part.split:
            counts[part.split] = counts.get(part.split, 0) + end - part.first
    return tuple(OwnSplit(name, count) for name, count in counts.items())


def _plain(column: Column, shape: tuple[int | None, ...]) -> Any:
    """Return the value of a column of one record: a scalar, bytes, an array or nested lists."""
    value = column.row(0)
    if column.offsets is not None:
        if len(shape) < 2:
            return value
        known = prod(size for size in shape if size is not None)
        sizes = [len(value) // max(known, 1) if size is None else size for size in shape]
        return np.array(value, object).reshape(sizes).tolist()
    if shape == ():
        return value.item()
    return value.reshape([-1 if size is None else size for size in shape]) if value.size else value


def _texts(column: Column) -> Any:
    assert column.offsets is not None
    data, bounds = column.values.tobytes(), column.offsets.tolist()
    for begin, end in pairwise(bounds):
        yield data[begin:end].decode("utf-8", "backslashreplace")


def _coded(values: np.ndarray) -> tuple[np.ndarray, tuple[Any, ...]]:
    """Return for each number the index of its value, and the values in the order of first rows."""
    distinct, first, codes = np.unique(values, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return place[codes.ravel()].astype(np.int64), tuple(distinct[order].tolist())
