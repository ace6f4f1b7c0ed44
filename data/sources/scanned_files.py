"""Read local or remote files that a scan has listed, unless they have changed since."""

import os
from typing import Final, Protocol

from tenfold.data.sources.base import SourceChanged, UnusableRecord
from tenfold.data.storage.folder import Entry
from tenfold.data.storage.open_folder import open_folder

# Reads from remote storage that one writing process runs at once.
CONCURRENT_READS: Final = 16


class Files(Protocol):
    """Reads scanned files by full path; picklable, and safe among threads.

    `concurrent_reads` is the number of reads to run at once: more than 1 where latency dominates.
    """

    concurrent_reads: int

    def read(self, path: bytes, size: int, version: int) -> bytes:
        """Return the bytes of a file.

        Args:
          path: Full path of the file.
          size: Its size in bytes at the time of the scan.
          version: Its version at the time of the scan: an mtime in ns, or a generation.

        Raises:
          SourceChanged: the file is gone, or has another size or version.
          UnusableRecord: the file cannot be read.
        """


def read_error(path: str, error: OSError) -> SourceChanged | UnusableRecord:
    """Return the exception of a source for a scanned file that could not be read."""
    if isinstance(error, FileNotFoundError):
        return SourceChanged(f"{path} has gone since the source was scanned")
    return UnusableRecord(f"it cannot be read ({error.strerror})")


class LocalFiles:
    """Files of the local file system; their versions are mtimes in ns."""

    concurrent_reads = 1

    def read(self, path: bytes, size: int, version: int) -> bytes:
        """Return the bytes of a file; see `Files`."""
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
        if len(data) != size or status.st_size != size or status.st_mtime_ns != version:
            raise SourceChanged(f"{os.fsdecode(path)} has changed since the source was scanned")
        return data


class RemoteFiles:
    """Files below the URL `root`; their versions are generations, or 0 on other storage."""

    concurrent_reads = CONCURRENT_READS

    def __init__(self, root: str) -> None:
        self._folder = open_folder(root)
        self._base = len(self._folder.path.encode()) + 1

    def read(self, path: bytes, size: int, version: int) -> bytes:
        """Return the bytes of a file; see `Files`."""
        name = path[self._base :].decode()
        data = self._folder.read(name, version=str(version or ""))
        if data is None or len(data) != size:
            raise SourceChanged(
                f"{path.decode()} has changed or gone since the source was scanned"
            )
        return data


def version_number(entry: Entry) -> int:
    """Return an entry's version as `Files.read` takes it."""
    return int(entry.version or 0)
