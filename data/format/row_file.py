"""Fixed-size rows and texts in memory-mapped local files: the result of a scan of a source.

Processes share them: a file of any length costs each process only the pages that it reads, and
pickling a file passes its path.
"""

import mmap
import struct
from array import array
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final

_BUFFERED_BYTES: Final = 1 << 20


class RowFileWriter:
    """Writes rows: a context manager; call `append` for each row, in order."""

    def __init__(self, path: Path, row: str) -> None:
        self._path = path
        self._row = row
        self._pack = struct.Struct(row).pack
        self._file: IO[bytes] = open(path, "wb", buffering=_BUFFERED_BYTES)  # noqa: SIM115

    def __enter__(self) -> "RowFileWriter":
        return self

    def append(self, *values: Any) -> None:
        """Add one row."""
        self._file.write(self._pack(*values))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()


class RowFile:
    """Rows of the format `row` (as in `struct`) in the file at `path`; indexed from 0."""

    def __init__(self, path: Path, row: str) -> None:
        self._path = path
        self._row = row
        self._map: Any = None
        self._struct = struct.Struct(row)

    def __reduce__(self) -> tuple[Any, ...]:
        return RowFile, (self._path, self._row)

    def _bytes(self) -> Any:
        if self._map is None:
            with open(self._path, "rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._map

    def __len__(self) -> int:
        size = self._path.stat().st_size
        return size // self._struct.size

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        """Return row `index`."""
        return self._struct.unpack_from(self._map or self._bytes(), index * self._struct.size)


class IndexFile(Sequence[int]):
    """Numbers of 8 bytes in the file at `path`, a sequence without slices."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._map: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        return IndexFile, (self._path,)

    @staticmethod
    def write(path: Path, numbers: "array[int]") -> "IndexFile":
        """Store `numbers`, an ``array("q")``, at `path`."""
        path.write_bytes(memoryview(numbers).cast("B"))
        return IndexFile(path)

    def __len__(self) -> int:
        return self._path.stat().st_size // 8

    def __getitem__(self, index: Any) -> Any:
        return self._numbers()[index]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        """Return the numbers as numpy does of any sequence, int64 [n], without reading them."""
        import numpy as np

        return np.frombuffer(self._numbers(), np.int64)

    def _numbers(self) -> Any:
        if self._map is None:
            with open(self._path, "rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._map = memoryview(mapped).cast("q")
        return self._map


class BlobFile:
    """A file of concatenated byte strings, each addressed by its offset and length."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._map: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        return BlobFile, (self._path,)

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes at `offset`."""
        if self._map is None:
            with open(self._path, "rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return bytes(self._map[offset : offset + length])
