"""A folder on a local disk, and helpers for local files.

A file appears completely or not at all: it is written under a temporary name beside its target,
synced to the disk, and renamed.
"""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from tenfold.data.errors import UserError, naming_file
from tenfold.data.storage.folder import (
    TEMPORARY_SUFFIX,
    Conflict,
    Entry,
    LocalPart,
    conflict_text,
)

# Errors of os.link on file systems without hard links.
_NO_LINKS: Final = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


def user_cache_folder(name: str) -> Path:
    """Return ``$XDG_CACHE_HOME/tenfold/NAME``, by default ``~/.cache/tenfold/NAME``.

    The folder need not exist.
    """
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(cache).absolute() / "tenfold" / name


def make_private_folder(folder: Path, *, what: str, remedy: str) -> None:
    """Create a folder that only its owner may enter; accept one that others may only read.

    Others could plant symbolic links in a folder of theirs, or in one that they may write to.

    Args:
      folder: The folder.
      what: Its name in the error.
      remedy: What the user can do instead.

    Raises:
      OSError: it cannot be created.
      UserError: it belongs to another user, or others may write to it.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    status = folder.stat()
    if status.st_uid != os.geteuid():
        raise UserError(
            f"{what} '{folder}' belongs to user {status.st_uid}: it must be yours "
            f"(user {os.geteuid()}); {remedy}"
        )
    if status.st_mode & 0o022:
        raise UserError(
            f"{what} '{folder}' has mode {status.st_mode & 0o7777:04o}: others must not write to "
            f"it; run 'chmod go-w {folder}', or {remedy}"
        )


def temporary_beside(path: Path) -> Path:
    """Return a name that nobody can guess, for a file that will be renamed to `path`."""
    return path.with_name(f".{path.name}.{os.urandom(8).hex()}{TEMPORARY_SUFFIX}")


def create_exclusively(path: str | Path, flags: int) -> int:
    """Create a file that must not exist, not even as a symbolic link; return its descriptor.

    It also serves as the `opener` of `open`.
    """
    return os.open(path, flags | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)


def open_real_file(path: str | Path, flags: int, *, mode: int = 0o666, remedy: str = "") -> int:
    """Open a file whose name others can know, and return its descriptor.

    Where others may write to its folder, a symbolic link of theirs would let this process write
    to any file of its user.

    Args:
      path: The file.
      flags: Those of `os.open`; O_NOFOLLOW and O_CLOEXEC are added.
      mode: Permissions of a new file.
      remedy: What the user can do instead of removing a link.

    Raises:
      UserError: it is a symbolic link.
      OSError: it cannot be opened.
    """
    try:
        return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise UserError(
            f"'{path}' is a symbolic link, which is never followed here: remove it{remedy}"
        ) from error


def open_appending(path: Path) -> IO[str]:
    """Open a text file to append lines, each of which is written at once; see `open_real_file`."""
    return open(path, "a", encoding="utf-8", buffering=1, opener=open_real_file)


def sync_file(path: Path) -> None:
    """Wait until the bytes of a local file are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _temporary_beside(path: Path, data: bytes, *, durable: bool = True) -> Iterator[Path]:
    """Write and sync `data` to a temporary file beside `path`; remove it unless it was renamed."""
    temporary = temporary_beside(path)
    try:
        with naming_file(path):
            with open(temporary, "wb", opener=create_exclusively) as file:
                file.write(data)
            if durable:
                sync_file(temporary)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def replace_file(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Create or replace a local file atomically; its folder must exist.

    A reader sees the old bytes or the new ones, never a part; if it is `durable`, even after a
    crash of the machine.

    Raises:
      OSError: the file cannot be written.
    """
    with _temporary_beside(path, data, durable=durable) as temporary:
        os.replace(temporary, path)


def _create_file(path: Path, data: bytes) -> None:
    """Create a file atomically; raise Conflict if it exists with other bytes."""
    with _temporary_beside(path, data) as temporary:
        try:
            os.link(temporary, path)
        except FileExistsError:
            if path.read_bytes() != data:
                raise Conflict(conflict_text(str(path))) from None
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            os.replace(temporary, path)


class LocalFolder:
    """A folder of the local file system; see `Folder`."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(os.path.expanduser(path))

    def _path_of(self, name: str) -> Path:
        return Path(self.path, name)

    def read(self, name: str, *, version: str = "") -> bytes | None:
        """Return the bytes of a file, or None if there is no such file."""
        del version
        try:
            return self._path_of(name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        """Return a range of a file; see `Folder`."""
        with open(self._path_of(name), "rb") as file:
            file.seek(offset)
            return file.read(length)

    def fetch_range(self, name: str, offset: int, length: int, descriptor: int) -> int:
        """Copy a range to another local file; see `Folder`."""
        return LocalPart(descriptor).take(offset, self.read_range(name, offset, length))

    def write(
        self, name: str, data: bytes, *, replaces: str | None = None, durable: bool = True
    ) -> None:
        """Create or replace a whole file; see `Folder`."""
        path = self._path_of(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if replaces == "":
            _create_file(path, data)
        else:
            replace_file(path, data, durable=durable)

    def publish(
        self, local: Path, name: str, *, synced: bool = False, replaces: str | None = None
    ) -> None:
        """Rename a complete local file to `name` once its bytes are on the disk."""
        del replaces
        if not synced:
            sync_file(local)
        os.replace(local, self._path_of(name))

    def entries(self, prefix: str = "") -> dict[str, Entry]:
        """Return the plain files directly in the folder `prefix`, by name."""
        return {name: Entry(size) for name, size in self.sizes(prefix).items()}

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """Return the sizes in bytes of the plain files directly in the folder `prefix`."""
        sizes = {}
        try:
            with os.scandir(self._path_of(prefix)) as entries:
                for entry in entries:
                    with contextlib.suppress(FileNotFoundError):  # renamed meanwhile
                        if entry.is_file():
                            sizes[entry.name] = entry.stat().st_size
        except FileNotFoundError:
            return {}
        return sizes

    def entry(self, name: str) -> Entry | None:
        """Return the entry of one file, or None if there is no such file."""
        path = self._path_of(name)
        return Entry(path.stat().st_size) if path.is_file() else None

    def folders(self) -> list[str]:
        """Return the names of the folders directly in this folder, sorted."""
        try:
            with os.scandir(self.path) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir())
        except FileNotFoundError:
            return []

    def walk(self, prefix: str = "") -> Iterator[tuple[str, Entry]]:
        """Yield every file below the folder `prefix`, at any depth, sorted by name."""
        below = [
            os.path.relpath(os.path.join(folder, name), self.path)
            for folder, _, names in os.walk(self._path_of(prefix))
            for name in names
        ]
        for name in sorted(below):
            yield name, Entry(self._path_of(name).stat().st_size)

    def remove(self, name: str) -> None:
        """Remove a file, if it exists."""
        self._path_of(name).unlink(missing_ok=True)

    def remove_folder(self, name: str) -> None:
        """Remove a folder if it is empty."""
        with contextlib.suppress(OSError):
            self._path_of(name).rmdir()

    def scratch(self) -> Path | None:
        """Return the folder itself."""
        return Path(self.path)
