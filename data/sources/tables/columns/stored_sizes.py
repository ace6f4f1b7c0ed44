"""The sizes of the records that stored rows become, and a hash of the rows."""

import hashlib
from collections.abc import Iterator
from math import prod
from typing import Final

import numpy as np

from tenfold.data.format.example import field
from tenfold.data.format.tfrecord import FRAME_BYTES
from tenfold.data.sources.tables.columns.column_spec import ColumnSpec
from tenfold.data.sources.tables.columns.column_store import SIZE, ColumnStore

_BLOCK_ROWS: Final = 1 << 16


def blocks(store: ColumnStore) -> Iterator[tuple[int, int]]:
    """Yield the first row and the end of each block of rows."""
    for begin in range(0, len(store), _BLOCK_ROWS):
        yield begin, min(begin + _BLOCK_ROWS, len(store))


def record_sizes(store: ColumnStore) -> tuple[int, int]:
    """Return the bytes of all records in shards, and of the largest."""
    total = largest = 0
    for begin, end in blocks(store):
        rows = store.raw_rows(begin, end)
        entries = np.zeros(end - begin, np.int64)
        for number, spec in enumerate(store.specs):
            if spec.name.startswith(SIZE):
                entries += _entry(spec.name.removeprefix(SIZE), _field(rows[f"c{number}"]))
            elif not spec.name.startswith("\0"):
                size = _entry(spec.name, _list_bytes(store, spec, rows[f"c{number}"], begin, end))
                entries += np.where(rows[f"p{number}"], size, 0) if spec.optional else size
        sizes = np.where(entries > 0, _field(entries), 0) + FRAME_BYTES
        total += int(sizes.sum())
        largest = max(largest, int(sizes.max()))
    return total, largest


def _list_bytes(
    store: ColumnStore, spec: ColumnSpec, stored: np.ndarray, begin: int, end: int
) -> np.ndarray:
    """Return the size of each row's packed list, int64 [n]."""
    count = end - begin
    if spec.kind == "bytes" and spec.shape == ():
        return _field(stored["values"])
    if spec.kind == "bytes" or (spec.kind == "int64" and None in spec.shape):
        column = store.take(slice(begin, end), (spec.name,))[spec.name]
        offsets = column.offsets
        items = _varint_bytes(column.values) if offsets is None else _field(np.diff(offsets))
        ends = np.concatenate([[0], np.cumsum(column.counts())])
        sums = np.diff(np.concatenate([[0], np.cumsum(items)])[ends])
        return sums if offsets is not None else np.where(sums > 0, _field(sums), 0)
    if None in spec.shape:
        data = stored["values"]
    elif spec.kind == "float":
        data = np.full(count, 4 * prod(size or 0 for size in spec.shape), np.int64)
    else:
        data = _varint_bytes(stored.reshape(count, -1)).sum(axis=1)
    return np.where(data > 0, _field(data), 0)


def _entry(name: str, packed: np.ndarray) -> np.ndarray:
    """Return the size of a feature's entry in the map; see `tenfold.data.format.example`."""
    key = len(field(1, name.encode()))
    return _field(key + _field(_field(packed)))


def _field(sizes: np.ndarray) -> np.ndarray:
    """Return the size of a length-delimited field of `sizes` bytes, int64 [n]."""
    return 1 + _varint_bytes(sizes) + sizes


def _varint_bytes(numbers: np.ndarray) -> np.ndarray:
    """Return the size of each number as a varint, int64; of any shape."""
    unsigned = np.ascontiguousarray(numbers, np.int64).view(np.uint64)
    sizes = np.ones(unsigned.shape, np.int64)
    most = int(unsigned.max(initial=0))
    for bits in range(7, 64, 7):
        if most >> bits:
            sizes += unsigned >= np.uint64(1 << bits)
    return sizes


def rows_digest(store: ColumnStore) -> str:
    """Return a hash of the stored rows and their layout."""
    digest = hashlib.blake2b(repr(store.specs).encode(), digest_size=16)
    for begin, end in blocks(store):
        digest.update(np.ascontiguousarray(store.raw_rows(begin, end)).tobytes())
    return digest.hexdigest()
