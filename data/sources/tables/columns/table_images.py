"""The images that a table names by paths relative to its folder."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np

from tenfold.data.format.columns import Column, bytes_column, number_column
from tenfold.data.format.image_header import image_shape, is_image, other_format
from tenfold.data.format.manifest import IMAGE
from tenfold.data.sources.base import UnusableRecord
from tenfold.data.sources.image_folders.image_tree import is_image_name
from tenfold.data.sources.image_folders.list_folders import shown_path
from tenfold.data.sources.scanned_files import Files, LocalFiles
from tenfold.data.sources.tables.columns.column_spec import ColumnSpec
from tenfold.data.sources.tables.columns.column_store import PATH, SIZE, VERSION

_SHOWN: Final = 3


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


def image_exists(images: Images, name: str) -> bool:
    """Whether there is an image that a row calls `name`."""
    try:
        images.stat(name)
    except (OSError, ValueError):
        return False
    return True


class ImageColumn:
    """A column of paths of images while its table is scanned.

    Attributes:
      name: The column's name in the table.
      feature: The name of the feature that it becomes.
      rows: Rows so far.
      missing: Rows so far without an image.
      missing_rows: The first of them.
      unusable: Why rows of the last batch cannot be used.
      first_problem: Why the first of the rows without an image has none; "" so far.
    """

    def __init__(self, name: str, feature: str, images: Images) -> None:
        self.name = name
        self.feature = feature
        self.rows = self.missing = 0
        self.missing_rows: list[int] = []
        self.unusable: dict[int, str] = {}
        self.first_problem = ""
        self._images = images

    @property
    def specs(self) -> tuple[ColumnSpec, ...]:
        """How the places of the images are stored."""
        return image_specs(self.feature)

    def take(self, items: Sequence[Any]) -> dict[str, Column]:
        """Note the cells of a batch, text, bytes or None, and return them as they are stored."""
        self.unusable = {}
        found = [self._found(row, item) for row, item in enumerate(items)]
        self.rows += len(items)
        return image_columns(self.feature, found)

    def _found(self, row: int, item: Any) -> tuple[bytes, int, int]:
        name = (item.decode() if isinstance(item, bytes) else item or "").strip()
        try:
            if name:
                return self._images.stat(name)
            problem = "it names no image"
        except (OSError, ValueError):
            problem = (
                f"there is no image '{self._images.path(name)}' (paths are relative to the "
                "table's folder)"
            )
        self.unusable[row] = f"column '{self.name}': {problem}"
        self.first_problem = self.first_problem or problem
        self.missing += 1
        self.missing_rows += [self.rows + row][: _SHOWN - len(self.missing_rows)]
        return b"", 0, 0


def image_specs(feature: str) -> tuple[ColumnSpec, ...]:
    """Return how path, size and version of the images of a feature are stored."""
    kinds = {PATH: "bytes", SIZE: "int64", VERSION: "int64"}
    return tuple(ColumnSpec(f"{head}{feature}", kind) for head, kind in kinds.items())


def image_columns(feature: str, found: Sequence[tuple[bytes, int, int]]) -> dict[str, Column]:
    """Return (full path, size in bytes, version) of the images of a feature as stored columns."""
    paths, sizes, versions = zip(*found, strict=True)
    return {
        f"{PATH}{feature}": bytes_column(list(paths)),
        f"{SIZE}{feature}": number_column(np.array(sizes, np.int64)),
        f"{VERSION}{feature}": number_column(np.array(versions, np.int64)),
    }


@dataclass(frozen=True)
class NamedImages:
    """The features of stored rows that are images, read when their record is written.

    Attributes:
      files: Reads the images.
      origins: For each feature what names its images, as ``column 'mask'``; the first feature
        also gives the record its name.
    """

    files: Files
    origins: Mapping[str, str]

    def read(self, row: Mapping[str, Column], *, any_format: bool) -> dict[str, bytes]:
        """Return the encoded images of one row, by feature.

        Args:
          row: The columns of the store, of this row only.
          any_format: Whether the feature ``image`` may have another format than JPEG and PNG.

        Raises:
          UnusableRecord: an image is broken; the message names its origin, and its path unless
            that is the record's name.
          SourceChanged: a file has changed since the scan.
        """
        values: dict[str, bytes] = {}
        for feature, origin in self.origins.items():
            path: bytes = row[f"{PATH}{feature}"].row(0)
            size, version = (int(row[f"{head}{feature}"].row(0)) for head in (SIZE, VERSION))
            try:
                values[feature] = self.files.read(path, size, version)
                _check(feature, values[feature], path, any_format=any_format)
            except (UnusableRecord, ValueError) as error:
                where = f", {shown_path(path)}" if path != self.path(row) else ""
                raise UnusableRecord(f"{origin}{where}: {error}") from error
        return values

    @property
    def path_columns(self) -> tuple[str, ...]:
        """The columns of the store that hold the paths, that of the first feature first."""
        return tuple(f"{PATH}{feature}" for feature in self.origins)

    def path(self, row: Mapping[str, Column]) -> bytes:
        """Return the path of a row's first image; b"" if none is there."""
        paths: list[bytes] = [row[name].row(0) for name in self.path_columns]
        return next(filter(None, paths), b"")


def _check(feature: str, data: bytes, path: bytes, *, any_format: bool) -> None:
    """Check that an image is complete.

    Raises:
      ValueError: it is not, or it is neither JPEG nor PNG; with `any_format` the feature
        ``image`` may be, because a transform encodes it anew.
    """
    name = other_format(data)
    if name and feature != IMAGE:
        raise ValueError(f"it is neither JPEG nor PNG but {name}: save it as one of these")
    if is_image(data) or not (any_format and (name or not is_image_name(path))):
        image_shape(data)
