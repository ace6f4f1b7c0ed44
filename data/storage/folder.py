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
from tenfold.data.format.tfrecord import extend_crc32c

_URL = re.compile(r"[a-z][a-z0-9+.-]+://")

GCS_SCHEMES: Final = ("gs://", "gcs://")

TEMPORARY_SUFFIX: Final = ".tmp"


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
