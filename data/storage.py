"""Folders of shards: on a local disk, or behind fsspec (``gs://…`` and the like).

Files appear whole or not at all: a local one is written beside its name, synced and renamed; a
remote one is sent in one request, because closing a remote file publishes whatever it holds.
"""

import contextlib
import os
import re
from pathlib import Path
from typing import Any, Final, Protocol

from tenfold.data.errors import JobError, UserError
from tenfold.data.manifest import MANIFEST_NAME, Manifest, manifest_from_json

_URL = re.compile(r"[a-z][a-z0-9+.-]+://")
TEMPORARY: Final = ".tmp"


class Folder(Protocol):
    """A folder on some storage; names are relative to it, with '/' between parts."""

    path: str

    def read(self, name: str) -> bytes | None:
        """Returns a file's bytes, or None where there is none."""

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        """Returns `length` bytes at `offset`, fewer at the end; raises FileNotFoundError."""

    def write(self, name: str, data: bytes) -> None:
        """Makes or replaces a whole file."""

    def publish(self, local: Path, name: str, *, synced: bool = False) -> None:
        """Moves a whole local file to `name`; with `synced` its bytes are on the disk already."""

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """Returns name and bytes of the plain files of the folder `prefix`."""

    def remove(self, name: str) -> None:
        """Removes a file; it may be gone already."""

    def remove_folder(self, name: str) -> None:
        """Removes an empty folder, where the storage knows such; it may be gone already."""

    def scratch(self) -> Path | None:
        """Returns a local folder on the same disk for files to `publish`, or None."""


def is_url(path: str) -> bool:
    """Says whether `path` names remote storage."""
    return bool(_URL.match(path))


def open_folder(path: str) -> Folder:
    """Returns the folder at `path`, which need not exist."""
    local = path.removeprefix("file://")
    return RemoteFolder(local) if is_url(local) else LocalFolder(local)


class LocalFolder:
    """A folder of the local file system."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(os.path.expanduser(path))

    def _at(self, name: str) -> Path:
        return Path(self.path, name)

    def read(self, name: str) -> bytes | None:
        """Returns a file's bytes, or None where there is none."""
        try:
            return self._at(name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        """Returns `length` bytes at `offset`, fewer at the end; raises FileNotFoundError."""
        with open(self._at(name), "rb") as file:
            file.seek(offset)
            return file.read(length)

    def write(self, name: str, data: bytes) -> None:
        """Makes or replaces a whole file, synced to the disk."""
        target = self._at(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}{TEMPORARY}")
        try:
            temporary.write_bytes(data)
            self.publish(temporary, name)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def publish(self, local: Path, name: str, *, synced: bool = False) -> None:
        """Renames a whole local file to `name`, after its bytes have reached the disk."""
        if not synced:
            sync_file(local)
        os.replace(local, self._at(name))

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """Returns name and bytes of the plain files of the folder `prefix`."""
        try:
            with os.scandir(self._at(prefix)) as entries:
                return {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
        except FileNotFoundError:
            return {}

    def remove(self, name: str) -> None:
        """Removes a file; it may be gone already."""
        self._at(name).unlink(missing_ok=True)

    def remove_folder(self, name: str) -> None:
        """Removes a folder if it is empty."""
        with contextlib.suppress(OSError):
            self._at(name).rmdir()

    def scratch(self) -> Path | None:
        """Returns the folder itself."""
        return Path(self.path)


class RemoteFolder:
    """A folder behind fsspec."""

    def __init__(self, path: str) -> None:
        self.path = path.rstrip("/")
        self._fs: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_fs": None}

    def _files(self) -> Any:
        if self._fs is None:
            import fsspec

            options = {"use_listings_cache": False}
            try:
                self._fs, _ = fsspec.core.url_to_fs(self.path, **options)
            except (ImportError, ValueError) as error:
                raise UserError(f"{self.path}: {error}") from error
        return self._fs

    def _at(self, name: str) -> str:
        return f"{self.path}/{name}".rstrip("/")

    def read(self, name: str) -> bytes | None:
        """Returns an object's bytes, or None where there is none."""
        try:
            return bytes(self._files().cat_file(self._at(name)))
        except FileNotFoundError:
            return None

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        """Returns `length` bytes at `offset`, fewer at the end; raises FileNotFoundError."""
        return bytes(self._files().cat_file(self._at(name), start=offset, end=offset + length))

    def write(self, name: str, data: bytes) -> None:
        """Makes or replaces a whole object in one request."""
        self._files().pipe_file(self._at(name), data)

    def publish(self, local: Path, name: str, *, synced: bool = False) -> None:
        """Sends a whole local file to `name` in one request, and removes it."""
        del synced
        self.write(name, local.read_bytes())
        local.unlink()

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """Returns name and bytes of the objects directly under `prefix`."""
        try:
            found = self._files().ls(self._at(prefix), detail=True)
        except FileNotFoundError:
            return {}
        return {
            entry["name"].rsplit("/", 1)[-1]: int(entry["size"] or 0)
            for entry in found
            if entry["type"] == "file"
        }

    def remove(self, name: str) -> None:
        """Removes an object; it may be gone already."""
        with contextlib.suppress(FileNotFoundError):
            self._files().rm_file(self._at(name))

    def remove_folder(self, name: str) -> None:
        """Does nothing: object stores have no folders."""

    def scratch(self) -> Path | None:
        """Returns None: there is no local folder."""
        return None


def sync_file(path: Path) -> None:
    """Waits until a local file's bytes are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_writable(folder: Folder) -> None:
    """Makes a local folder and checks that files can be made in it; for a remote one nothing.

    Raises:
      UserError: it cannot be made or written to.
    """
    if not isinstance(folder, LocalFolder):
        return
    probe = Path(folder.path, f".probe.{os.getpid()}{TEMPORARY}")
    try:
        Path(folder.path).mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"output '{folder.path}' cannot be written to ({error.strerror}): choose another"
        ) from error


def read_manifest(path: str) -> Manifest:
    """Returns the manifest of the folder of shards at `path`.

    Raises:
      UserError: there is no such folder, it has no manifest, or the manifest is damaged.
      JobError: the storage could not be read.
    """
    folder = open_folder(path)
    where = f"{folder.path}/{MANIFEST_NAME}"
    try:
        data = folder.read(MANIFEST_NAME)
    except OSError as error:
        raise JobError(f"{where} could not be read: {error}") from error
    if data is None:
        raise UserError(
            f"there is no {where}: --shards names a folder that 'tenfold write' has finished"
        )
    try:
        return manifest_from_json(data.decode(), where=where)
    except UnicodeDecodeError as error:
        raise UserError(f"{where} is not a manifest: it is not UTF-8 text") from error
