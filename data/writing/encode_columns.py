"""Encoding of `Columns` as framed Examples: the bytes of `example` and `tfrecord`, many at a time.

A frame is laid out as cells, each of which holds one piece of every record: bytes that all records
share, numbers of a fixed width, or pieces of varying length such as varints and text. The cells of
n records are filled side by side into a matrix of n rows; a mask drops what is padding.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from math import prod
from typing import Final, TypeAlias

import numpy as np

from tenfold.data.format.columns import Column, Columns
from tenfold.data.format.example import LIST_FIELDS, field, varint
from tenfold.data.format.manifest import LABEL
from tenfold.data.format.schema import Schema
from tenfold.data.format.tfrecord import (
    FOOTER_BYTES,
    HEADER_BYTES,
    crc32c,
    fingerprint64,
    frame_header,
    mask_crc32c,
)
from tenfold.data.writing.column_schemas import check_images, schemas_of

# A piece of varying length is padded in the matrix up to this many bytes a record, or where
# padding is at most this multiple of the pieces. Longer ones are joined record by record.
_PADDED_BYTES: Final = 64
_PADDED_RATIO: Final = 2

# A number of bytes: the same for all records, or int64 [n].
Size: TypeAlias = "int | np.ndarray"


@dataclass(frozen=True)
class EncodedBlock:
    """Framed records.

    Attributes:
      frames: The frames, in the order of the records.
      records: Their number.
      fingerprints: The fingerprint of each payload, uint64 [records].
      schemas: Each schema that occurs, with the index of the first record that has it.
      label_counts: Records of each class.
      unusable: Why records were left out, by their index.
    """

    frames: bytes
    records: int
    fingerprints: np.ndarray
    schemas: tuple[tuple[int, Schema], ...]
    label_counts: Mapping[int, int]
    unusable: Mapping[int, str]

    @property
    def fingerprint(self) -> int:
        """The sum of the fingerprints."""
        return sum(self.fingerprints.tolist())


def encode_columns(columns: Columns) -> EncodedBlock:
    """Return the records of `columns` as frames."""
    unusable, shapes = check_images(columns)
    kept = np.ones(columns.num_records, bool)
    kept[list(unusable)] = False
    rows = np.flatnonzero(kept)
    chosen = dict(sorted(columns.columns.items()))
    if unusable:
        chosen = {name: column.compress(kept) for name, column in chosen.items()}
    frames, fingerprints = _frames(len(rows), chosen)
    return EncodedBlock(
        frames=frames,
        records=len(rows),
        fingerprints=fingerprints,
        schemas=tuple(schemas_of(rows, chosen, shapes)),
        label_counts=_label_counts(chosen),
        unusable=unusable,
    )


def _frames(num_records: int, columns: Mapping[str, Column]) -> tuple[bytes, np.ndarray]:
    """Return the framed records and their fingerprints."""
    if not num_records:
        return b"", np.zeros(0, np.uint64)
    payload = _example_cells(num_records, columns)
    sizes = _total(cell.size for cell in payload)
    footer = _Matrix(np.zeros((num_records, FOOTER_BYTES), np.uint8))
    joined = _join([_headers(sizes), *payload, footer], num_records)
    if isinstance(sizes, int):
        sizes = np.full(num_records, sizes)
    ends = np.cumsum(sizes + (HEADER_BYTES + FOOTER_BYTES)) - FOOTER_BYTES
    bounds = zip((ends - sizes).tolist(), ends.tolist(), strict=True)
    data = joined.tobytes()
    payloads = [data[begin:end] for begin, end in bounds]
    checksums = mask_crc32c(np.fromiter(map(crc32c, payloads), np.uint32, num_records))
    joined[ends[:, None] + np.arange(FOOTER_BYTES)] = _as_bytes(checksums.astype("<u4"))
    fingerprints = np.fromiter(map(fingerprint64, payloads), np.uint64, num_records)
    return joined.tobytes(), fingerprints


@dataclass(frozen=True)
class _Constant:
    """A cell of the same bytes in all records."""

    data: bytes

    @property
    def size(self) -> Size:
        return len(self.data)

    def fill(self, out: np.ndarray) -> None:
        out[:] = np.frombuffer(self.data, np.uint8)


@dataclass(frozen=True, eq=False)
class _Matrix:
    """A cell of a fixed number of bytes, uint8 [n, bytes]."""

    data: np.ndarray

    @property
    def size(self) -> Size:
        return int(self.data.shape[1])

    def fill(self, out: np.ndarray) -> None:
        out[:] = self.data


@dataclass(frozen=True, eq=False)
class _Pieces:
    """A cell of varying length: `sizes` [n] of the bytes `data`."""

    data: np.ndarray
    sizes: np.ndarray

    @property
    def size(self) -> Size:
        return self.sizes

    def fill(self, out: np.ndarray) -> None:
        out[_mask(self.sizes, out.shape[1])] = self.data


_Cell: TypeAlias = _Constant | _Matrix | _Pieces


def _pieces(data: np.ndarray, sizes: np.ndarray) -> "_Matrix | _Pieces":
    """Return the cell of pieces, as a matrix where all have the same size."""
    count = len(sizes)
    if count and len(data) == count * int(sizes[0]) and bool((sizes == sizes[0]).all()):
        return _Matrix(data.reshape(count, int(sizes[0])))
    return _Pieces(data, sizes)


def _join(cells: Sequence[_Cell], num_records: int) -> np.ndarray:
    """Return the bytes of the cells, record by record, uint8 [bytes]."""
    if not any(map(_is_long, cells)):
        return _join_padded(cells, num_records)
    parts: list[Iterator[memoryview]] = []
    for is_long, run in groupby(cells, _is_long):
        if is_long:
            parts += [_split(c.data, c.sizes) for c in run if isinstance(c, _Pieces)]
        else:
            short = list(run)
            sizes = _broadcast(_total(cell.size for cell in short), num_records)
            parts.append(_split(_join_padded(short, num_records), sizes))
    records = zip(*parts, strict=True)
    return np.frombuffer(bytearray().join(chain.from_iterable(records)), np.uint8)


def _is_long(cell: _Cell) -> bool:
    """Whether padding all pieces of a cell to the longest takes too much memory."""
    if not isinstance(cell, _Pieces):
        return False
    longest, count = int(cell.sizes.max(initial=0)), len(cell.sizes)
    return longest > _PADDED_BYTES and longest * count > _PADDED_RATIO * len(cell.data)


def _split(data: np.ndarray, sizes: np.ndarray) -> Iterator[memoryview]:
    """Yield the piece of each record."""
    view, begin = data.data, 0
    for end in np.cumsum(sizes).tolist():
        yield view[begin:end]
        begin = end


def _join_padded(cells: Sequence[_Cell], num_records: int) -> np.ndarray:
    widths = [c.size if isinstance(c.size, int) else int(c.size.max(initial=0)) for c in cells]
    matrix = np.empty((num_records, sum(widths)), np.uint8)
    mask = None
    begin = 0
    for cell, width in zip(cells, widths, strict=True):
        cell.fill(matrix[:, begin : begin + width])
        if isinstance(cell, _Pieces):
            mask = np.ones(matrix.shape, bool) if mask is None else mask
            mask[:, begin : begin + width] = _mask(cell.sizes, width)
        begin += width
    return matrix.reshape(-1) if mask is None else matrix[mask]


def _mask(sizes: np.ndarray, width: int) -> np.ndarray:
    """Return a mask of the first `sizes` [n] bytes of each row, bool [n, width]."""
    mask: np.ndarray = np.arange(width) < sizes[:, None]
    return mask


def _total(sizes: "Iterator[Size]") -> Size:
    fixed, total = 0, None
    for size in sizes:
        if isinstance(size, int):
            fixed += size
        else:
            total = size if total is None else total + size
    return fixed if total is None else total + fixed


def _headers(sizes: Size) -> _Cell:
    """Return the cell of frame headers; there are few different lengths in a block."""
    if isinstance(sizes, int):
        return _Constant(frame_header(sizes))
    different, index = np.unique(sizes, return_inverse=True)
    headers = b"".join(map(frame_header, different.tolist()))
    return _Matrix(np.frombuffer(headers, np.uint8).reshape(-1, HEADER_BYTES)[index])


def _example_cells(num_records: int, columns: Mapping[str, Column]) -> list[_Cell]:
    """Return the cells of the serialized Examples of columns, which are sorted by name."""
    cells = [cell for name, column in columns.items() for cell in _entry(name, column)]
    if any(column.present is None for column in columns.values()):
        return [*_key(1, _total(cell.size for cell in cells)), *cells]
    # Without a feature an Example has no field 1 either.
    size = _total(cell.size for cell in cells)
    sizes = np.full(num_records, size) if isinstance(size, int) else size
    return [_where(sizes > 0, _key(1, sizes[sizes > 0])), *cells]


def _entry(name: str, column: Column) -> list[_Cell]:
    """Return the cells of one entry of the map of features."""
    if column.present is not None:
        return [_where(column.present, _entry_of_all(name, column.compress(column.present)))]
    return _entry_of_all(name, column)


def _entry_of_all(name: str, column: Column) -> list[_Cell]:
    packed = _PACK["bytes" if column.kind == "image" else column.kind](column)
    kind = "bytes" if column.kind == "image" else column.kind
    value = [*_key(LIST_FIELDS[kind], _total(cell.size for cell in packed)), *packed]
    entry = [
        _Constant(field(1, name.encode())),
        *_key(2, _total(cell.size for cell in value)),
        *value,
    ]
    return [*_key(1, _total(cell.size for cell in entry)), *entry]


def _where(present: np.ndarray, cells: Sequence[_Cell]) -> _Cell:
    """Return one cell of the cells of those records that are present, and of nothing of others."""
    count = int(present.sum())
    size = _total(cell.size for cell in cells)
    sizes = np.zeros(len(present), np.int64)
    sizes[present] = size
    return _pieces(_join(cells, count) if count else np.zeros(0, np.uint8), sizes)


def _key(number: int, size: Size) -> list[_Cell]:
    """Return the key and the length of a length-delimited field."""
    key = bytes((number << 3 | 2,))
    if not isinstance(size, int) and len(size) and bool((size == size[0]).all()):
        size = int(size[0])
    if isinstance(size, int):
        return [_Constant(key + varint(size))]
    return [_Constant(key), _varints(size.astype(np.uint64))]


def _varints(numbers: np.ndarray) -> "_Matrix | _Pieces":
    """Return the varints of uint64 [n] as a cell."""
    largest = int(numbers.max(initial=0))
    if largest < 0x80:
        return _Matrix(numbers.astype(np.uint8)[:, None])
    width = len(varint(largest))
    sizes = np.ones(len(numbers), np.int64)
    for digit in range(1, width):
        sizes += numbers >= np.uint64(1 << 7 * digit)
    shifts = np.arange(width, dtype=np.uint64) * np.uint64(7)
    digits = (numbers[:, None] >> shifts).astype(np.uint8) & np.uint8(0x7F)
    digits |= _mask(sizes - 1, width).astype(np.uint8) << np.uint8(7)
    return _pieces(digits[_mask(sizes, width)], sizes)


def _pack_floats(column: Column) -> list[_Cell]:
    data = column.values.astype("<f4", copy=False)
    if column.lengths is None:
        matrix = _as_bytes(data.reshape(len(data), prod(data.shape[1:])))
        return [*_key(1, matrix.shape[1]), _Matrix(matrix)] if matrix.shape[1] else []
    return _packed(_as_bytes(data[:, None]).reshape(-1), 4 * column.lengths)


def _pack_ints(column: Column) -> list[_Cell]:
    flat = np.ascontiguousarray(column.values).reshape(-1).view(np.uint64)
    varints = _varints(flat)
    counts = column.counts()
    if len(flat) == len(counts) and column.lengths is None:
        return [*_key(1, varints.size), varints]
    return _packed(varints.data.reshape(-1), _per_record(varints, counts))


def _per_record(cell: _Cell, counts: np.ndarray) -> np.ndarray:
    """Return the bytes of the items of each record, which has `counts` [n] items."""
    if isinstance(cell.size, int):
        return counts * cell.size
    ends = np.concatenate([[0], np.cumsum(cell.size)])
    items = np.concatenate([[0], np.cumsum(counts)])
    return np.diff(ends[items])


def _packed(data: np.ndarray, sizes: np.ndarray) -> list[_Cell]:
    """Return field 1 of a list of packed numbers; an empty list has none."""
    some = sizes > 0
    if some.all():
        return [*_key(1, sizes), _pieces(data, sizes)]
    key = _where(some, _key(1, sizes[some]))
    return [key, _pieces(data, sizes)]


def _pack_bytes(column: Column) -> list[_Cell]:
    assert column.offsets is not None
    data, sizes = column.values[column.offsets[0] : column.offsets[-1]], np.diff(column.offsets)
    cells = [*_key(1, sizes), _pieces(data, sizes)]
    if column.shape == ():
        return cells
    items = _join(cells, len(sizes)) if len(sizes) else np.zeros(0, np.uint8)
    item = _pieces(items, _broadcast(_total(cell.size for cell in cells), len(sizes)))
    return [_pieces(items, _per_record(item, column.counts()))]


_PACK: Final[Mapping[str, Callable[[Column], list[_Cell]]]] = {
    "float": _pack_floats,
    "int64": _pack_ints,
    "bytes": _pack_bytes,
}


def _broadcast(size: Size, count: int) -> np.ndarray:
    return np.full(count, size, np.int64) if isinstance(size, int) else size


def _as_bytes(matrix: np.ndarray) -> np.ndarray:
    """Return the bytes of each row of a matrix, or of each entry of a vector, uint8 [n, bytes]."""
    rows = matrix if matrix.ndim == 2 else matrix[:, None]
    return np.ascontiguousarray(rows).view(np.uint8)


def _label_counts(columns: Mapping[str, Column]) -> dict[int, int]:
    column = columns.get(LABEL)
    if column is None or column.kind != "int64" or column.shape != ():
        return {}
    labels, counts = np.unique(column.values[column.is_present()], return_counts=True)
    return dict(zip(labels.tolist(), counts.tolist(), strict=True))
