"""Folders of any storage that fsspec knows (``s3://``, ``az://``, ``hdfs://``, ``memory://`` …).

What a write promises depends on the file system behind it:

- A file appears only when it is whole: object stores, which take it in one request.
- Exclusive creation (``replaces=""``): where the file system has ``pipe_file(mode="create")`` of
  its own, as s3fs has (``If-None-Match``). Elsewhere the file is looked for before it is written,
  and two processes may both find none.
- The stored size is compared after each write, a range's length after each read. Checksums on the
  way are the file system's: botocore sends and checks a CRC32 for ``s3://``.

Replacing one version only (``replaces="…"``) is Cloud Storage's alone. Shards are checked against
the manifest on every storage.
"""

import asyncio
import contextlib
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

from tenfold.data.errors import JobError, UserError
from tenfold.data.storage.folder import Conflict, Entry, LocalPart, conflict_text
from tenfold.data.storage.retry import TransientError, with_retries

# fsspec keeps a whole range in memory, and several are under way at once.
_PIECE_BYTES: Final = 10 << 20

# Names of errors that are no OSError and may be gone the next time, as botocore's
# EndpointConnectionError, ReadTimeoutError and FlexibleChecksumError (damaged on the way).
_TRANSIENT: Final = re.compile("Connect|Timeout|Checksum|Streaming|IncompleteRead")

Result = TypeVar("Result")


class RemoteFolder:
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
            except (FileNotFoundError, FileExistsError, PermissionError):
                raise
            except (OSError, asyncio.TimeoutError) as error:
                raise TransientError(f"{type(error).__name__}: {error}") from error
            except Exception as error:  # of the library behind the file system
                text = f"{type(error).__name__}: {error}"
                if _TRANSIENT.search(type(error).__name__):
                    raise TransientError(text) from error
                raise JobError(f"{self._at(name)}: {text}") from error

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

        def ask() -> bytes:
            data = self._files().cat_file(self._at(name), start=offset, end=offset + length)
            if len(data) < length:  # the end of the file, or a body that was cut
                left = max(0, self._files().info(self._at(name))["size"] - offset)
                if len(data) != min(length, left):
                    raise OSError(f"{len(data):,} bytes came of {min(length, left):,}")
            return bytes(data)

        return self._try(name, ask) if length > 0 else b""

    def fetch_range(self, name: str, offset: int, length: int, descriptor: int) -> int:
        """Writes such bytes to the same place of a local file; returns their CRC32C."""
        part = LocalPart(descriptor)
        for at in range(offset, offset + length, _PIECE_BYTES):
            part.take(at, self.read_range(name, at, min(_PIECE_BYTES, offset + length - at)))
        return part.crc32c

    def write(self, name: str, data: bytes, *, replaces: str | None = None) -> None:
        """Make or replace a whole object in one request; see `Folder`.

        Raises:
          Conflict: with ``replaces=""``, another file is there.
          JobError: the storage cannot be reached, or does not hold what was sent.
        """
        exclusive = replaces == ""
        if exclusive and not creates_exclusively(self._files()):
            exclusive = False
            self._expect_none_but(name, data)
        mode = {"mode": "create"} if exclusive else {}

        def send() -> None:
            self._files().pipe_file(self._at(name), data, **mode)
            stored = self._files().info(self._at(name))["size"]
            if stored != len(data):
                raise OSError(f"the storage holds {stored:,} of {len(data):,} bytes")

        try:
            self._try(name, send)
        except FileExistsError:  # perhaps from an attempt of ours whose answer was lost
            self._expect_none_but(name, data)

    def _expect_none_but(self, name: str, data: bytes) -> None:
        if self.read(name) not in (None, data):
            raise Conflict(conflict_text(self._at(name)))

    def publish(
        self, local: Path, name: str, *, synced: bool = False, replaces: str | None = None
    ) -> None:
        """Sends a whole local file to `name` in one request, and removes it."""
        del synced
        self.write(name, local.read_bytes(), replaces=replaces)
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


def creates_exclusively(files: Any) -> bool:
    """Whether a file system of fsspec's can create a file only where there is none.

    fsspec's own base class falls back on opening the file in mode "xb", which many file systems
    do not know.
    """
    write = getattr(type(files), "_pipe_file", None) or type(files).pipe_file
    is_own = not write.__module__.startswith(("fsspec.spec", "fsspec.asyn"))
    return is_own and "mode" in inspect.signature(write).parameters
