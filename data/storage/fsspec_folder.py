"""Folders of any storage that fsspec supports (``s3://``, ``az://``, ``hdfs://`` …).

The guarantees of Cloud Storage are missing. Whether a file appears only once it is complete
depends on the file system (on object stores it does: one request). There are no preconditions,
and no checksums to compare uploads with. Shards are checked against the manifest all the same.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

from tenfold.data.errors import UserError
from tenfold.data.storage.folder import Conflict, Entry, LocalPart, conflict_text
from tenfold.data.storage.retry import TransientError, with_retries

# fsspec holds a whole range in memory, and several ranges are fetched at once.
_RANGE_BYTES: Final = 10 << 20

Result = TypeVar("Result")


class FsspecFolder:
    """A folder behind fsspec; see `Folder`. Each process opens the file system on first use."""

    def __init__(self, path: str) -> None:
        self.path = path.rstrip("/")
        self._fs: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_fs": None}

    def _filesystem(self) -> Any:
        if self._fs is None:
            import fsspec

            try:
                self._fs, _ = fsspec.core.url_to_fs(self.path, use_listings_cache=False)
            except (ImportError, ValueError) as error:
                raise UserError(f"{self.path}: {error}") from error
        return self._fs

    def _path_of(self, name: str) -> str:
        return f"{self.path}/{name}".rstrip("/")

    def _retry(self, name: str, request: Callable[[Any, str], Result]) -> Result:
        """Return `request(file system, path of name)`, called again after transient errors.

        A missing file or permission is raised at once; other errors count as transient.
        """
        path = self._path_of(name)

        def once() -> Result:
            try:
                return request(self._filesystem(), path)
            except (FileNotFoundError, PermissionError):
                raise
            except (OSError, asyncio.TimeoutError) as error:
                raise TransientError(f"{type(error).__name__}: {error}") from error

        return with_retries(once, what=path)

    def read(self, name: str, *, version: str = "") -> bytes | None:
        """Return the bytes of a file, or None if there is no such file."""
        del version
        try:
            return bytes(self._retry(name, lambda fs, path: fs.cat_file(path)))
        except FileNotFoundError:
            return None

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        """Return a range of a file; see `Folder`."""
        return bytes(
            self._retry(
                name,
                lambda fs, path: fs.cat_file(path, start=offset, end=offset + length),
            )
        )

    def fetch_range(self, name: str, offset: int, length: int, descriptor: int) -> int:
        """Copy a range to a local file; see `Folder`."""
        part, end = LocalPart(descriptor), offset + length
        for begin in range(offset, end, _RANGE_BYTES):
            part.take(begin, self.read_range(name, begin, min(_RANGE_BYTES, end - begin)))
        return part.crc32c

    def write(self, name: str, data: bytes, *, replaces: str | None = None) -> None:
        """Create or replace a whole file in one request; see `Folder`."""
        if replaces == "" and self.read(name) not in (None, data):
            raise Conflict(conflict_text(self._path_of(name)))
        self._retry(name, lambda fs, path: fs.pipe_file(path, data))

    def publish(
        self, local: Path, name: str, *, synced: bool = False, replaces: str | None = None
    ) -> None:
        """Upload a local file to `name` in one request, and remove it."""
        del synced, replaces
        self.write(name, local.read_bytes())
        local.unlink()

    def entries(self, prefix: str = "") -> dict[str, Entry]:
        """Return the files directly in the folder `prefix`, by name."""
        return {
            _last(item["name"]): Entry(int(item["size"] or 0))
            for item in self._listed(prefix)
            if item["type"] == "file"
        }

    def entry(self, name: str) -> Entry | None:
        """Return the entry of one file, or None if there is no such file."""
        try:
            item = self._retry(name, lambda fs, path: fs.info(path))
        except FileNotFoundError:
            return None
        return Entry(int(item["size"] or 0)) if item["type"] == "file" else None

    def folders(self) -> list[str]:
        """Return the names of the folders directly in this folder, sorted."""
        return sorted(_last(i["name"]) for i in self._listed("") if i["type"] == "directory")

    def walk(self, prefix: str = "") -> Iterator[tuple[str, Entry]]:
        """Yield every file below the folder `prefix`, at any depth, sorted by name."""
        found = self._retry(prefix, lambda fs, path: fs.find(path, detail=True))
        base = len(self._filesystem()._strip_protocol(self.path)) + 1
        for name in sorted(found):
            yield name[base:], Entry(int(found[name]["size"] or 0))

    def _listed(self, prefix: str) -> list[dict[str, Any]]:
        try:
            return list(self._retry(prefix, lambda fs, path: fs.ls(path, detail=True)))
        except FileNotFoundError:
            return []

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """Return the sizes in bytes of the files directly in the folder `prefix`."""
        return {name: entry.bytes for name, entry in self.entries(prefix).items()}

    def remove(self, name: str) -> None:
        """Remove a file, if it exists."""
        with contextlib.suppress(FileNotFoundError):
            self._retry(name, lambda fs, path: fs.rm_file(path))

    def remove_folder(self, name: str) -> None:
        """Do nothing: object stores have no folders."""

    def scratch(self) -> Path | None:
        """Return None: the folder is not on a local disk."""
        return None


def _last(name: str) -> str:
    return name.rstrip("/").rsplit("/", 1)[-1]
