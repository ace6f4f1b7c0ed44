"""The images that a table names by paths relative to its folder."""

import os
from typing import Protocol

from tenfold.data.sources.scanned_files import Files, LocalFiles


class Images(Protocol):
    """The images that a table may name: where they are, and `files` to read them."""

    files: Files

    def stat(self, name: str) -> tuple[bytes, int, int]:
        """Return full path, size in bytes and version (see `Files`) of the image `name`.

        Raises:
          OSError, ValueError: there is no such image.
        """

    def path(self, name: str) -> str:
        """Return the full path of the image that a row calls `name`."""


class LocalImages:
    """Images with paths relative to the local `folder`."""

    def __init__(self, folder: str) -> None:
        self.files: Files = LocalFiles()
        self._folder = folder

    def stat(self, name: str) -> tuple[bytes, int, int]:
        """Return full path, size and mtime in ns of an image; see `Images`."""
        status = os.stat(self.path(name))
        return os.fsencode(self.path(name)), status.st_size, status.st_mtime_ns

    def path(self, name: str) -> str:
        """Return the full path of the image that a row calls `name`."""
        return os.path.join(self._folder, name)
