"""Folders of any storage that fsspec knows (``s3://``, ``az://``, ``hdfs://``, ``memory://`` …).

Without Cloud Storage's promises: whether a file appears only when it is whole is up to the
file system behind it (object stores: yes, in one request), there is no precondition and no
checksum of the storage to compare with. Shards are checked against the manifest all the same.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

from tenfold.data.errors import UserError
from tenfold.data.storage.folder import Conflict, Entry, LocalPart, conflict_text
from tenfold.data.storage.retry import TransientError, with_retries

# fsspec keeps a whole range in memory, and several are under way at once.
_PIECE_BYTES: Final = 10 << 20

Result = TypeVar("Result")


class FsspecFolder:
    """A folder behind fsspec. It may go to other processes."""

    def __init__(self, path: str) -> None:
        self.path = path.rstrip("/")
        self._fs: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_fs": None}

    def _files(self) -> Any:
        if self._fs is None:
            import fsspec

            try:
                self._fs, _ = fsspec.core.url_to_fs(self.path, use_listings_cache=False)
            except (ImportError, ValueError) as error:
                raise UserError(f"{self.path}: {error}") from error
        return self._fs

    def _at(self, name: str) -> str:
        return f"{self.path}/{name}".rstrip("/")

    def _try(self, name: str, call: Callable[[], Result]) -> Result:
        """Returns what `call` returns, repeated where the storage fails."""

        def once() -> Result:
            try:
                return call()
            except (FileNotFoundError, PermissionError):
                raise
            except (OSError, asyncio.TimeoutError) as error:
                raise TransientError(f"{type(error).__name__}: {error}") from error

        return with_retries(once, what=self._at(name))

    def read(self, name: str, *, version: str = "") -> bytes | None:
        """Returns an object's bytes, or None where there is none."""
        del version
        try:
            return bytes(self._try(name, lambda: self._files().cat_file(self._at(name))))
        except FileNotFoundError:
            return None

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        """Returns `length` bytes at `offset`, fewer at the end; raises FileNotFoundError."""
        return bytes(
            self._try(
                name,
                lambda: self._files().cat_file(self._at(name), start=offset, end=offset + length),
            )
        )

    def fetch_range(self, name: str, offset: int, length: int, descriptor: int) -> int:
        """Writes such bytes to the same place of a local file; returns their CRC32C."""
        part = LocalPart(descriptor)
        for at in range(offset, offset + length, _PIECE_BYTES):
            part.take(at, self.read_range(name, at, min(_PIECE_BYTES, offset + length - at)))
        return part.crc32c

    def write(self, name: str, data: bytes, *, replaces: str | None = None) -> None:
        """Makes or replaces a whole object in one request; see `Folder`."""
        if replaces == "" and self.read(name) not in (None, data):
            raise Conflict(conflict_text(self._at(name)))
        self._try(name, lambda: self._files().pipe_file(self._at(name), data))

    def publish(
        self, local: Path, name: str, *, synced: bool = False, replaces: str | None = None
    ) -> None:
        """Sends a whole local file to `name` in one request, and removes it."""
        del synced, replaces
        self.write(name, local.read_bytes())
        local.unlink()

    def entries(self, prefix: str = "") -> dict[str, Entry]:
        """Returns the objects directly under `prefix`, by name."""
        return {
            _last(item["name"]): Entry(int(item["size"] or 0))
            for item in self._listed(prefix)
            if item["type"] == "file"
        }

    def entry(self, name: str) -> Entry | None:
        """Returns what is known of one file, None where there is none."""
        try:
            item = self._try(name, lambda: self._files().info(self._at(name)))
        except FileNotFoundError:
            return None
        return Entry(int(item["size"] or 0)) if item["type"] == "file" else None

    def folders(self) -> list[str]:
        """Returns the names of the folders directly in this one, sorted."""
        return sorted(_last(i["name"]) for i in self._listed("") if i["type"] == "directory")

    def walk(self, prefix: str = "") -> Iterator[tuple[str, Entry]]:
        """Yields every file below the folder `prefix`, however deep, sorted by name."""
        found = self._try(prefix, lambda: self._files().find(self._at(prefix), detail=True))
        base = len(self._files()._strip_protocol(self.path)) + 1
        for name in sorted(found):
            yield name[base:], Entry(int(found[name]["size"] or 0))

    def _listed(self, prefix: str) -> list[dict[str, Any]]:
        try:
            return list(self._try(prefix, lambda: self._files().ls(self._at(prefix), detail=True)))
        except FileNotFoundError:
            return []

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """Returns name and bytes of the objects directly under `prefix`."""
        return {name: entry.bytes for name, entry in self.entries(prefix).items()}

    def remove(self, name: str) -> None:
        """Removes an object; it may be gone already."""
        with contextlib.suppress(FileNotFoundError):
            self._try(name, lambda: self._files().rm_file(self._at(name)))

    def remove_folder(self, name: str) -> None:
        """Does nothing: object stores have no folders."""

    def scratch(self) -> Path | None:
        """Returns None: there is no local folder."""
        return None


def _last(name: str) -> str:
    return name.rstrip("/").rsplit("/", 1)[-1]
