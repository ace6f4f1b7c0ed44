"""Folders of shards: here on a local disk, in `gcs` on Cloud Storage, in `remote` elsewhere.

Files appear whole or not at all: a local one is written beside its name, synced and renamed; a
remote one is sent in one request, because closing a remote file publishes whatever it holds.
"""

import contextlib
import errno
import os
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, TypeVar

from tenfold.data.errors import JobError, UserError
from tenfold.data.manifest import MANIFEST_NAME, Manifest, manifest_from_json
from tenfold.data.records import extend_crc32c

_URL = re.compile(r"[a-z][a-z0-9+.-]+://")
GCS_SCHEMES: Final = ("gs://", "gcs://")
TEMPORARY: Final = ".tmp"
# How many small requests to remote storage are under way at once.
REMOTE_AT_ONCE: Final = 16

# What file systems without hard links say.
_NO_LINKS: Final = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Entry:
    """A file of a folder: its bytes, its CRC32C where the storage knows it, and which of the
    files that have had its name it is (a generation), "" where the storage cannot tell.
    """

    bytes: int
    crc32c: int | None = None
    version: str = ""


class Conflict(JobError):
    """Another process was first to write a file."""


def conflict_text(path: str) -> str:
    """Returns the message of a Conflict over the file at `path`."""
    return f"{path} has been written by another process: two writes cannot share one folder"


@dataclass
class LocalPart:
    """Bytes on their way to a local file, and the CRC32C of those that came."""

    descriptor: int
    crc32c: int = 0

    def take(self, at: int, part: bytes) -> int:
        """Writes `part` at `at`, which follows what came before; returns the CRC32C so far."""
        self.crc32c = extend_crc32c(self.crc32c, part)
        view = memoryview(part)
        while view:
            view = view[os.pwrite(self.descriptor, view, at + len(part) - len(view)) :]
        return self.crc32c


class Folder(Protocol):
    """A folder on some storage; names are relative to it, with '/' between parts.

    `replaces` says what a new file may replace: None anything, "" nothing, else only the
    version of that name. A file of the very same bytes is never in the way; another raises
    Conflict. Cloud Storage holds this exactly; a local disk holds "" in `write`; on other
    storage "" is looked at before writing, which two processes may do at once.
    """

    path: str

    def read(self, name: str, *, version: str = "") -> bytes | None:
        """Returns a file's bytes, or None where there is none.

        With a `version` also None where the storage says that the file is another one.
        """

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        """Returns `length` bytes at `offset`, fewer at the end; raises FileNotFoundError."""

    def fetch_range(self, name: str, offset: int, length: int, descriptor: int) -> int:
        """Writes such bytes to the same place of a local file; returns their CRC32C."""

    def write(self, name: str, data: bytes, *, replaces: str | None = None) -> None:
        """Makes or replaces a whole file."""

    def publish(
        self, local: Path, name: str, *, synced: bool = False, replaces: str | None = None
    ) -> None:
        """Moves a whole local file to `name`; with `synced` its bytes are on the disk already."""

    def entries(self, prefix: str = "") -> dict[str, Entry]:
        """Returns the plain files of the folder `prefix`, by name."""

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """Returns name and bytes of the plain files of the folder `prefix`."""

    def entry(self, name: str) -> Entry | None:
        """Returns what is known of one file, None where there is none."""

    def folders(self) -> list[str]:
        """Returns the names of the folders directly in this one, sorted."""

    def walk(self, prefix: str = "") -> Iterator[tuple[str, Entry]]:
        """Yields every file below the folder `prefix`, however deep, sorted by name."""

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
    bare = path.removeprefix("file://")
    if not is_url(bare):
        return LocalFolder(bare)
    if bare.startswith(GCS_SCHEMES):
        from tenfold.data.gcs import GcsFolder

        return GcsFolder(bare)
    from tenfold.data.remote import RemoteFolder

    return RemoteFolder(bare)


class LocalFolder:
    """A folder of the local file system."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(os.path.expanduser(path))

    def _at(self, name: str) -> Path:
        return Path(self.path, name)

    def read(self, name: str, *, version: str = "") -> bytes | None:
        """Returns a file's bytes, or None where there is none."""
        del version
        try:
            return self._at(name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        """Returns `length` bytes at `offset`, fewer at the end; raises FileNotFoundError."""
        with open(self._at(name), "rb") as file:
            file.seek(offset)
            return file.read(length)

    def fetch_range(self, name: str, offset: int, length: int, descriptor: int) -> int:
        """Writes such bytes to the same place of another file; returns their CRC32C."""
        return LocalPart(descriptor).take(offset, self.read_range(name, offset, length))

    def write(self, name: str, data: bytes, *, replaces: str | None = None) -> None:
        """Makes or replaces a whole file, synced to the disk; see `Folder`."""
        target = self._at(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}{TEMPORARY}")
        try:
            temporary.write_bytes(data)
            if replaces == "":
                self._create(temporary, target, data)
            else:
                self.publish(temporary, name)
        finally:
            temporary.unlink(missing_ok=True)

    def _create(self, temporary: Path, target: Path, data: bytes) -> None:
        """Gives `temporary` the name `target` too, unless that is taken."""
        sync_file(temporary)
        try:
            os.link(temporary, target)
        except FileExistsError:
            if target.read_bytes() != data:
                raise Conflict(conflict_text(str(target))) from None
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            os.replace(temporary, target)

    def publish(
        self, local: Path, name: str, *, synced: bool = False, replaces: str | None = None
    ) -> None:
        """Renames a whole local file to `name`, after its bytes have reached the disk."""
        del replaces
        if not synced:
            sync_file(local)
        os.replace(local, self._at(name))

    def entries(self, prefix: str = "") -> dict[str, Entry]:
        """Returns the plain files of the folder `prefix`, by name."""
        return {name: Entry(size) for name, size in self.sizes(prefix).items()}

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """Returns name and bytes of the plain files of the folder `prefix`."""
        try:
            with os.scandir(self._at(prefix)) as entries:
                return {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
        except FileNotFoundError:
            return {}

    def entry(self, name: str) -> Entry | None:
        """Returns what is known of one file, None where there is none."""
        path = self._at(name)
        return Entry(path.stat().st_size) if path.is_file() else None

    def folders(self) -> list[str]:
        """Returns the names of the folders directly in this one, sorted."""
        try:
            with os.scandir(self.path) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir())
        except FileNotFoundError:
            return []

    def walk(self, prefix: str = "") -> Iterator[tuple[str, Entry]]:
        """Yields every file below the folder `prefix`, however deep, sorted by name."""
        below = [
            os.path.relpath(os.path.join(folder, name), self.path)
            for folder, _, names in os.walk(self._at(prefix))
            for name in names
        ]
        for name in sorted(below):
            yield name, Entry(self._at(name).stat().st_size)

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


def for_each(
    folder: Folder, work: Callable[[Item], Result], items: Iterable[Item]
) -> list[Result]:
    """Returns what `work` returns for each item; remote storage does many at a time."""
    if isinstance(folder, LocalFolder):
        return [work(item) for item in items]
    with ThreadPoolExecutor(REMOTE_AT_ONCE) as pool:
        return list(pool.map(work, items))


def sync_file(path: Path) -> None:
    """Waits until a local file's bytes are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def save_file(path: str, data: bytes) -> None:
    """Makes or replaces one file, here or on remote storage, as a whole.

    Raises:
      UserError: it is no place for a file: a bucket, or one that does not exist.
      OSError: it cannot be written; here its folder must exist.
      JobError: the storage could not be reached.
    """
    path = path.removeprefix("file://")
    if is_url(path):
        folder, _, name = path.rpartition("/")
        if not is_url(folder) or not name:
            raise UserError(f"'{path}' names no file: give {path.rstrip('/')}/NAME")
    else:
        folder, name = os.path.split(os.path.abspath(os.path.expanduser(path)))
        if not os.path.isdir(folder):
            raise FileNotFoundError(errno.ENOENT, f"there is no folder '{folder}'")
    open_folder(folder).write(name, data)


def make_writable(folder: Folder) -> None:
    """Makes a local folder and checks that files can be made in it; lists a remote one.

    Raises:
      UserError: it cannot be made or written to; there is no such bucket, or it is closed to us.
      JobError: the storage could not be reached.
    """
    if not isinstance(folder, LocalFolder):
        folder.sizes()
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
