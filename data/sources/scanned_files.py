"""Files that a scan has seen, read here or on remote storage unless they have changed since."""

import os
from typing import Final, Protocol

from tenfold.data.sources.base import SourceChanged, UnusableRecord
from tenfold.data.storage.folder import Entry
from tenfold.data.storage.open_folder import open_folder

# How many reads from remote storage a writing process has under way.
CONCURRENT_READS: Final = 16


class Files(Protocol):
    """Files by full path. `concurrent_reads` says how many reads at once are worth it."""

    concurrent_reads: int

    def read(self, path: bytes, size: int, version: int) -> bytes:
        """Returns the bytes of a file that a scan has seen with this size and version.

        Raises:
          SourceChanged: it is gone, or of another size or version.
          UnusableRecord: it cannot be read.
        """


def read_error(path: str, error: OSError) -> SourceChanged | UnusableRecord:
    """Returns what a source raises where a file that a scan has seen could not be read."""
    if isinstance(error, FileNotFoundError):
        return SourceChanged(f"{path} has gone since the source was scanned")
    return UnusableRecord(f"it cannot be read ({error.strerror})")


class LocalFiles:
    """Files of the local file system; their versions are times of change, in ns."""

    concurrent_reads = 1

    def read(self, path: bytes, size: int, version: int) -> bytes:
        """Returns the bytes of a file that a scan has seen; see `Files`."""
        try:
            descriptor = os.open(path, os.O_RDONLY)
            try:
                status = os.fstat(descriptor)
                data = os.read(descriptor, size)
                while len(data) < size and (more := os.read(descriptor, size - len(data))):
                    data += more
            finally:
                os.close(descriptor)
        except OSError as error:
            raise read_error(os.fsdecode(path), error) from error
        if (status.st_size, status.st_mtime_ns, len(data)) != (size, version, size):
            raise SourceChanged(f"{os.fsdecode(path)} has changed since the source was scanned")
        return data


class RemoteFiles:
    """Files below the URL `root`; their versions are generations, 0 where there are none."""

    concurrent_reads = CONCURRENT_READS

    def __init__(self, root: str) -> None:
        self._folder = open_folder(root)
        self._base = len(self._folder.path.encode()) + 1

    def read(self, path: bytes, size: int, version: int) -> bytes:
        """Returns the bytes of a file that a scan has seen; see `Files`."""
        name = path[self._base :].decode()
        data = self._folder.read(name, version=str(version or ""))
        if data is None or len(data) != size:
            raise SourceChanged(
                f"{path.decode()} has changed or gone since the source was scanned"
            )
        return data


def version_number(entry: Entry) -> int:
    """Returns an entry's version as `Files` takes it."""
    return int(entry.version or 0)
