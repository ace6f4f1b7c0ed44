"""Folders of any storage that fsspec supports (``s3://``, ``az://``, ``hdfs://`` …).

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

# fsspec holds a whole range in memory, and several ranges are fetched at once.
_RANGE_BYTES: Final = 10 << 20

# Names of errors that are no OSError and may be gone the next time, as botocore's
# EndpointConnectionError, ReadTimeoutError and FlexibleChecksumError (damaged on the way).
_TRANSIENT: Final = re.compile("Connect|Timeout|Checksum|Streaming|IncompleteRead")

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
        filesystem, path = self._filesystem(), self._path_of(name)

        def once() -> Result:
            try:
                return request(filesystem, path)
            except (FileNotFoundError, FileExistsError, PermissionError):
                raise
            except (OSError, asyncio.TimeoutError) as error:
                raise TransientError(f"{type(error).__name__}: {error}") from error
            except Exception as error:  # of the library behind the file system
                text = f"{type(error).__name__}: {error}"
                if _TRANSIENT.search(type(error).__name__):
                    raise TransientError(text) from error
                raise JobError(f"{path}: {text}") from error

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

        def ask(fs: Any, path: str) -> bytes:
            data = fs.cat_file(path, start=offset, end=offset + length)
            if len(data) < length:  # the end of the file, or a body that was cut
                expected = min(length, max(0, fs.info(path)["size"] - offset))
                if len(data) != expected:
                    raise OSError(f"received {len(data):,} of {expected:,} bytes")
            return bytes(data)

        return self._retry(name, ask) if length > 0 else b""

    def fetch_range(self, name: str, offset: int, length: int, descriptor: int) -> int:
        """Copy a range to a local file; see `Folder`."""
        part, end = LocalPart(descriptor), offset + length
        for begin in range(offset, end, _RANGE_BYTES):
            part.take(begin, self.read_range(name, begin, min(_RANGE_BYTES, end - begin)))
        return part.crc32c

    def write(
        self, name: str, data: bytes, *, replaces: str | None = None, durable: bool = True
    ) -> None:
        """Create or replace a whole file in one request; see `Folder`.

        Raises:
          Conflict: with ``replaces=""``, another file is there.
          JobError: the storage cannot be reached, or does not hold what was sent.
        """
        del durable
        exclusive = replaces == ""
        if exclusive and not creates_exclusively(self._filesystem()):
            exclusive = False
            self._expect_no_other(name, data)
        mode = {"mode": "create"} if exclusive else {}

        def send(fs: Any, path: str) -> None:
            fs.pipe_file(path, data, **mode)
            stored = fs.info(path)["size"]
            if stored != len(data):
                raise OSError(f"the storage holds {stored:,} of {len(data):,} bytes")

        try:
            self._retry(name, send)
        except FileExistsError:  # perhaps from an attempt of ours whose answer was lost
            self._expect_no_other(name, data)

    def _expect_no_other(self, name: str, data: bytes) -> None:
        if self.read(name) not in (None, data):
            raise Conflict(conflict_text(self._path_of(name)))

    def publish(
        self, local: Path, name: str, *, synced: bool = False, replaces: str | None = None
    ) -> None:
        """Upload a local file to `name` in one request, and remove it."""
        del synced
        self.write(name, local.read_bytes(), replaces=replaces)
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


def creates_exclusively(files: Any) -> bool:
    """Whether a file system of fsspec's can create a file only where there is none.

    fsspec's own base class falls back on opening the file in mode "xb", which many file systems
    do not know.
    """
    write = getattr(type(files), "_pipe_file", None) or type(files).pipe_file
    is_own = not write.__module__.startswith(("fsspec.spec", "fsspec.asyn"))
    # adlfs takes `mode` among further keywords, and has `overwrite` in its signature.
    return is_own and not {"mode", "overwrite"}.isdisjoint(inspect.signature(write).parameters)
