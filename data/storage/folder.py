"""The Folder protocol, which every kind of storage implements, and its value types.

Imports no other module of this folder.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from tenfold.data.errors import JobError

_URL = re.compile(r"[a-z][a-z0-9+.-]+://")

GCS_SCHEMES: Final = ("gs://", "gcs://")

TEMPORARY_SUFFIX: Final = ".tmp"


@dataclass(frozen=True)
class Entry:
    """One file of a folder.

    Attributes:
      bytes: Its size.
      crc32c: Its CRC32C; None if the storage keeps no checksum.
      version: Identifies the content among all that the name has had (a generation); "" if the
        storage keeps no versions.
    """

    bytes: int
    crc32c: int | None = None
    version: str = ""


class Conflict(JobError):
    """Another process wrote the file first."""


def conflict_text(path: str) -> str:
    """Return the message of a Conflict over the file at `path`."""
    return f"{path} has been written by another process: two writes cannot share one folder"


@dataclass
class LocalPart:
    """A range of a local file while it is written, and the CRC32C of the bytes so far."""

    descriptor: int
    crc32c: int = 0

    def take(self, offset: int, part: bytes) -> int:
        """Write `part` at `offset`, the end of the part before it; return the CRC32C so far."""
        from tenfold.data.format.tfrecord import extend_crc32c

        self.crc32c = extend_crc32c(self.crc32c, part)
        view = memoryview(part)
        while view:
            view = view[os.pwrite(self.descriptor, view, offset + len(part) - len(view)) :]
        return self.crc32c


class Folder(Protocol):
    """A folder on some storage. Names are relative to it, with '/' between their parts.

    A folder may be pickled, sent to other processes and used by several threads at once. It need
    not exist. Failures of a network are retried inside; each method raises OSError or JobError
    once the retries are used up, and UserError for a missing bucket or missing permissions.

    The argument `replaces` of the writing methods names the content that a new file may
    replace: None any content, "" none, otherwise only the version of that name. A file with
    identical bytes never conflicts; any other raises Conflict. Cloud Storage guarantees this. A
    local disk guarantees only "" in `write`. Other storage checks "" before it writes, so two
    processes that write at the same moment may both succeed.
    """

    path: str

    def read(self, name: str, *, version: str = "") -> bytes | None:
        """Return the bytes of a file, or None if there is no such file.

        With a `version`, also returns None if the storage reports another version.
        """

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        """Return `length` bytes at `offset`, fewer at the end of the file.

        Raises:
          FileNotFoundError: there is no such file.
        """

    def fetch_range(self, name: str, offset: int, length: int, descriptor: int) -> int:
        """Copy a range to the same offset of a local file, and return its CRC32C.

        Args:
          name: Name of the file.
          offset: Where the range begins, in bytes.
          length: Bytes of the range; fewer are copied at the end of the file.
          descriptor: Open file descriptor of the local file.

        Raises:
          FileNotFoundError: there is no such file.
        """

    def write(
        self, name: str, data: bytes, *, replaces: str | None = None, durable: bool = True
    ) -> None:
        """Create or replace a whole file; readers see the old bytes or all of the new ones.

        Args:
          name: Its name.
          data: Its bytes.
          replaces: The content that may be replaced; see the class.
          durable: Wait until the bytes are on the disk. Otherwise a crash of the machine may
            leave a local file that is empty or cut, which its readers have to notice.
        """

    def publish(
        self, local: Path, name: str, *, synced: bool = False, replaces: str | None = None
    ) -> None:
        """Move a complete local file to `name`.

        Args:
          local: The file; it is gone afterwards.
          name: Its new name.
          synced: Whether its bytes are on the disk already, so that no fsync is needed.
          replaces: The content that may be replaced; see the class.
        """

    def entries(self, prefix: str = "") -> dict[str, Entry]:
        """Return the plain files directly in the folder `prefix`, by name."""

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """Return the sizes in bytes of the plain files directly in the folder `prefix`."""

    def entry(self, name: str) -> Entry | None:
        """Return the entry of one file, or None if there is no such file."""

    def folders(self) -> list[str]:
        """Return the names of the folders directly in this folder, sorted."""

    def walk(self, prefix: str = "") -> Iterator[tuple[str, Entry]]:
        """Yield every file below the folder `prefix`, at any depth, sorted by name."""

    def remove(self, name: str) -> None:
        """Remove a file, if it exists."""

    def remove_folder(self, name: str) -> None:
        """Remove an empty folder, if it exists and the storage has folders."""

    def scratch(self) -> Path | None:
        """Return a local folder on the same disk for files to `publish`; None if remote."""


def is_url(path: str) -> bool:
    """Whether `path` names remote storage."""
    return bool(_URL.match(path))
