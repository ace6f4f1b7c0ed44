"""A folder on a local disk.

Files appear whole or not at all: each is written beside its name, synced and renamed.
"""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tenfold.data.storage.folder import TEMPORARY_SUFFIX, Conflict, Entry, LocalPart, conflict_text

# What file systems without hard links say.
_NO_LINKS: Final = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


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
        temporary = target.with_name(f".{target.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
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


def sync_file(path: Path) -> None:
    """Waits until a local file's bytes are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
