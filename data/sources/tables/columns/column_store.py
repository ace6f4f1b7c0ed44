"""The rows of a scanned table in two local files, which all processes map into memory.

One file holds a fixed number of bytes for each row, so that rows in any order are gathered in one
step: numbers of a fixed shape, and for anything of varying length its place in the other file, the
blobs. Only numpy is needed to read them: a process that forked from the scan must not use Arrow's
threads.
"""

import hashlib
import mmap
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final

import numpy as np

from tenfold.data.format.columns import Column
from tenfold.data.sources.tables.columns.column_spec import ColumnSpec

# Columns of the store that are no features: the row in its file; and, with the name of a feature
# appended, the path, size and version of the image that the row names for that feature.
ROW: Final = "\0row"
PATH: Final = "\0path "
SIZE: Final = "\0size "
VERSION: Final = "\0version "

_BUFFERED_BYTES: Final = 1 << 20


def _is_fixed(spec: ColumnSpec) -> bool:
    return spec.kind != "bytes" and None not in spec.shape


def _row_type(specs: Sequence[ColumnSpec]) -> np.dtype[Any]:
    """Return the layout of a row.

    A fixed column has its numbers. Any other has in the file of blobs ``values`` bytes at ``at``,
    and a list of bytes before these the lengths of its ``count`` items as int64.
    """
    place = np.dtype([("at", "<u8"), ("values", "<i8"), ("count", "<i8")])
    fields: list[Any] = []
    for number, spec in enumerate(specs):
        if _is_fixed(spec):
            fields.append((f"c{number}", "<i8" if spec.kind == "int64" else "<f4", spec.shape))
        else:
            fields.append((f"c{number}", place))
        if spec.optional:
            fields.append((f"p{number}", "?"))
    return np.dtype(fields)


class ColumnStoreWriter:
    """Writes rows in blocks of columns: a context manager.

    Attributes:
      rows: The number of rows so far.
      digest: A hash of the blobs so far.
    """

    def __init__(self, folder: Path, specs: Sequence[ColumnSpec]) -> None:
        self.rows = 0
        self.digest = hashlib.blake2b(digest_size=16)
        self._folder = folder
        self._specs = tuple(specs)
        self._type = _row_type(specs)
        self._at = 0

    def __enter__(self) -> "ColumnStoreWriter":
        self._rows: IO[bytes] = open(self._folder / "table.rows", "wb")
        self._blobs: IO[bytes] = open(
            self._folder / "table.blobs", "wb", buffering=_BUFFERED_BYTES
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._rows.close()
        self._blobs.close()

    def append(
        self, columns: Mapping[str, Column], count: int, keep: np.ndarray | None = None
    ) -> None:
        """Add `count` rows; of these only those in `keep`, bool [count], if it is given."""
        rows = np.zeros(count, self._type)
        for number, spec in enumerate(self._specs):
            column = columns[spec.name]
            if _is_fixed(spec):
                rows[f"c{number}"] = column.values.reshape(count, *spec.shape)
            else:
                self._append_blobs(rows[f"c{number}"], column)
            if spec.optional:
                rows[f"p{number}"] = column.is_present()
        if keep is not None:
            rows = rows[keep]
        self._rows.write(rows.tobytes())
        self.rows += len(rows)

    def _append_blobs(self, places: np.ndarray, column: Column) -> None:
        counts = column.counts()
        if column.offsets is None:
            sizes = counts * column.values.itemsize
            blob = np.ascontiguousarray(column.values).tobytes()
            places["at"] = self._at + np.cumsum(sizes) - sizes
            places["values"], places["count"] = sizes, counts
            return self._write(blob)
        ends = np.concatenate([[0], np.cumsum(counts)])
        bounds = column.offsets[ends]
        places["values"], places["count"] = np.diff(bounds), counts
        data = np.ascontiguousarray(column.values)
        if column.shape == ():
            places["at"] = self._at + bounds[:-1] - bounds[0]
            return self._write(data[bounds[0] : bounds[-1]].tobytes())
        lengths = np.diff(column.offsets)
        for row in range(len(places)):
            places["at"][row] = self._at
            self._write(lengths[ends[row] : ends[row + 1]].tobytes())
            self._write(data[bounds[row] : bounds[row + 1]].tobytes())
        return None

    def _write(self, blob: bytes) -> None:
        self._blobs.write(blob)
        self.digest.update(blob)
        self._at += len(blob)


class ColumnStore:
    """The rows that a `ColumnStoreWriter` wrote into `folder`; pickles as its path."""

    def __init__(self, folder: Path, specs: Sequence[ColumnSpec]) -> None:
        self.specs = tuple(specs)
        self._folder = folder
        self._type = _row_type(specs)
        self._open: tuple[np.ndarray, Any] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return ColumnStore, (self._folder, self.specs)

    def _files(self) -> tuple[np.ndarray, Any]:
        if self._open is None:
            rows = np.memmap(self._folder / "table.rows", self._type, "r")
            with open(self._folder / "table.blobs", "rb") as file:
                is_empty = not (self._folder / "table.blobs").stat().st_size
                blobs = b"" if is_empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._open = np.asarray(rows), blobs
        return self._open

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._files()[0])

    def raw_rows(self, begin: int, end: int) -> np.ndarray:
        """Return a range of rows as they are stored."""
        rows: np.ndarray = self._files()[0][begin:end]
        return rows

    def replace(self, name: str, begin: int, values: np.ndarray) -> None:
        """Overwrite numbers of a fixed column, from row `begin` on, in the file."""
        number = self._number(name)
        rows = np.memmap(self._folder / "table.rows", self._type, "r+")
        rows[f"c{number}"][begin : begin + len(values)] = values
        rows.flush()

    def take(self, indices: Any, names: Sequence[str] | None = None) -> dict[str, Column]:
        """Return rows as columns by name.

        Args:
          indices: Numbers of rows in any order, or a slice.
          names: The columns to return; None for all.
        """
        rows = self._files()[0][indices]
        chosen = range(len(self.specs)) if names is None else map(self._number, names)
        return {self.specs[number].name: self._column(rows, number) for number in chosen}

    def _number(self, name: str) -> int:
        return next(n for n, spec in enumerate(self.specs) if spec.name == name)

    def _column(self, rows: np.ndarray, number: int) -> Column:
        spec = self.specs[number]
        present = np.ascontiguousarray(rows[f"p{number}"]) if spec.optional else None
        places = rows[f"c{number}"]
        if _is_fixed(spec):
            return Column(spec.kind, np.ascontiguousarray(places), spec.shape, present=present)
        if spec.kind != "bytes":
            dtype = np.int64 if spec.kind == "int64" else np.float32
            values = np.frombuffer(self._blobs_at(places, 0), dtype)
            counts = np.ascontiguousarray(places["count"])
            return Column(spec.kind, values, (None,), counts, present=present)
        if spec.shape == ():
            data = np.frombuffer(self._blobs_at(places, 0), np.uint8)
            offsets = np.concatenate([[0], np.cumsum(places["values"])])
            return Column("bytes", data, (), None, offsets, present)
        heads = places["count"] * 8
        lengths = np.frombuffer(self._blobs_at(places, None), np.int64)
        data = np.frombuffer(self._blobs_at(places, heads), np.uint8)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        if None in spec.shape:
            counts = np.ascontiguousarray(places["count"])
            return Column("bytes", data, (None,), counts, offsets, present)
        return Column("bytes", data, spec.shape, None, offsets, present)

    def _blobs_at(self, places: np.ndarray, skip: Any) -> bytes:
        """Return the rows' bytes after `skip`; with None, the lengths of the items instead."""
        blobs = self._files()[1]
        if skip is None:
            begins, sizes = places["at"], places["count"] * 8
        else:
            begins, sizes = places["at"].astype(np.int64) + skip, places["values"]
        begins = begins.astype(np.int64)
        if (
            len(begins)
            and sizes.sum() == begins[-1] + sizes[-1] - begins[0]
            and ((begins[1:] == (begins + sizes)[:-1]).all())
        ):  # one after the other
            return bytes(blobs[begins[0] : begins[-1] + sizes[-1]])
        ends = (begins + sizes).tolist()
        return b"".join([blobs[a:b] for a, b in zip(begins.tolist(), ends, strict=True)])
