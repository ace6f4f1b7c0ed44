"""Tables of examples: a column of image paths, a column of labels, and further features.

The scan packs everything but the images, once. The bytes of an image are read when its record is
written, and stored unchanged. Paths are relative to the table's folder.
"""

import hashlib
import os
from pathlib import Path
from typing import Any, Final, Protocol

from tenfold.data.errors import UserError
from tenfold.data.format.example import Features, decode_example, feature_entry, field, to_list
from tenfold.data.format.image_header import image_shape
from tenfold.data.format.manifest import IMAGE, LABEL, Feature
from tenfold.data.format.row_file import BlobFile, RowFile, RowFileWriter
from tenfold.data.format.schema import Schema, SchemaError, SchemaObserver
from tenfold.data.format.tfrecord import FRAME_BYTES
from tenfold.data.planning.layout import SourceStats
from tenfold.data.sources.base import Encoded, SourceOptions, UnusableRecord
from tenfold.data.sources.features import (
    LABEL_NAMES,
    PATH_NAMES,
    choose_feature,
    class_index,
    encode_features,
    is_one_hot,
    with_standard_names,
)
from tenfold.data.sources.scanned_files import Files, LocalFiles
from tenfold.data.sources.table_rows import read_rows

# A row refers to three byte strings that lie one after the other in the blob file: the image's
# path, the packed features whose names sort before `image`, and those that sort after it.
# Offset of the first; their three lengths; class or -1; size and version of the image.
_ROW: Final = "<QIIIqQq"


class TableSource:
    """The rows of one table; `images` reads the images, None for a table without."""

    notes: tuple[str, ...] = ()

    def __init__(
        self,
        path: str,
        stats: SourceStats,
        rows: RowFile,
        blobs: BlobFile,
        schema: Schema,
        images: Files | None,
    ) -> None:
        self.stats = stats
        self.concurrent_reads = images.concurrent_reads if images else 1
        self._path = path
        self._rows = rows
        self._blobs = blobs
        self._schema = schema
        self._images = images

    def encoded(self, index: int) -> Encoded:
        """Return the row and its image, packed; see `Source`."""
        offset, path_bytes, before_bytes, after_bytes, label, size, version = self._rows[index]
        begin = offset + path_bytes
        before = self._blobs.read(begin, before_bytes)
        after = self._blobs.read(begin + before_bytes, after_bytes)
        schema, entries = self._schema, [before, after]
        if self._images:
            path = self._blobs.read(offset, path_bytes)
            image = self._images.read(path, size, version)
            entries = [before, feature_entry(IMAGE, "bytes", field(1, image)), after]
            schema = tuple(sorted((*schema, _image_feature(image)), key=lambda f: f.name))
        payload = field(1, b"".join(entries))
        return Encoded(payload, schema, label if label >= 0 else None)

    def features(self, index: int) -> Features:
        """Return the row's values, the image as encoded bytes; see `Source`."""
        shapes = {feature.name: feature.shape for feature in self._schema}
        payload = self.encoded(index).payload
        return {
            name: values[0] if shapes.get(name, ()) == () else values
            for name, (_, values) in decode_example(payload).items()
        }

    def name(self, index: int) -> str:
        """Return the image's path, or the table and the number of the row."""
        if not self._images:
            return f"{self._path}: row {index}"
        offset, length, *_ = self._rows[index]
        return os.fsdecode(self._blobs.read(offset, length))


def _image_feature(image: bytes) -> Feature:
    try:
        return Feature(IMAGE, "image", image_shape(image))
    except ValueError as error:
        raise UnusableRecord(str(error)) from None


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


def scan_table(
    path: str, scratch: Path, options: SourceOptions, images: Images | None = None
) -> TableSource:
    """Scan a table.

    Args:
      path: The local table file.
      scratch: Local folder for the packed rows.
      options: Names of the columns of images and labels; whether labels are one-hot.
      images: The images that the table may name; by default those relative to its folder.

    Raises:
      UserError: the table cannot be read, a row does not match the others, or an image is
        missing.
    """
    images = images or LocalImages(os.path.dirname(os.path.abspath(path)))
    scan = _Scan(path, scratch, options, images)
    labels = scan.text_labels()
    with scan:
        for number, row in enumerate(read_rows(path)):
            scan.add(number, row, labels)
    return scan.source(tuple(labels))


class _Scan:
    """A scan in progress: its sums, and the files of rows and packed features that it writes."""

    def __init__(self, path: str, scratch: Path, options: SourceOptions, images: Images) -> None:
        self._path = path
        self._images = images
        self._options = options
        self._row_path, self._blob_path = scratch / "table.rows", scratch / "table.blobs"
        self._observer = SchemaObserver()
        self._examples = self._bytes = self._max_bytes = self._offset = 0
        self._hash = hashlib.blake2b(digest_size=8)
        first = next(read_rows(path), None)
        if first is None:
            raise UserError(f"source '{path}' has no rows")
        self._label_column = choose_feature(options.label, LABEL_NAMES, first, "label")
        self._image_column = choose_feature(options.image, PATH_NAMES, first, "image")
        if self._image_column and not isinstance(first[self._image_column], str):
            self._image_column = ""

    def __enter__(self) -> "_Scan":
        self._rows = RowFileWriter(self._row_path, _ROW)
        self._blobs = open(self._blob_path, "wb", buffering=1 << 20)
        return self

    def __exit__(self, *error: Any) -> None:
        self._rows.__exit__(*error)
        self._blobs.close()

    def text_labels(self) -> dict[str, int]:
        """Return the class of every label that is text, sorted by name; empty for numbers."""
        if not self._label_column:
            return {}
        labels = (row.get(self._label_column) for row in read_rows(self._path))
        names = sorted({label for label in labels if isinstance(label, str)})
        return {name: index for index, name in enumerate(names)}

    def add(self, number: int, row: dict[str, Any], labels: dict[str, int]) -> None:
        """Pack one row; `labels` gives the class of each text label."""
        where = f"source '{self._path}', row {number}"
        values = with_standard_names(row, self._image_column, self._label_column)
        image_name = values.pop(IMAGE) if self._image_column else None
        if LABEL in values:
            values[LABEL] = self._class(values[LABEL], labels)
        try:
            encoded = encode_features(values)
            self._observer.add(encoded.schema)
        except (UnusableRecord, SchemaError) as error:
            raise UserError(f"{where}: {error}") from error
        path, size, version = self._stat_image(where, image_name)
        self._write(values, encoded, path, size, version)

    def _class(self, value: Any, labels: dict[str, int]) -> Any:
        if isinstance(value, str):
            return labels[value]
        never = self._options.one_hot == "never"
        if isinstance(value, list) and not never and is_one_hot(value):
            return class_index(value)
        return value

    def _stat_image(self, where: str, name: Any) -> tuple[bytes, int, int]:
        if not self._image_column:
            return b"", 0, 0
        try:
            return self._images.stat(str(name))
        except (OSError, ValueError) as error:
            path = self._images.path(str(name))
            raise UserError(
                f"{where}: there is no image '{path}' (paths are relative to the table's folder)"
            ) from error

    def _write(
        self, values: Features, encoded: Encoded, path: bytes, size: int, version: int
    ) -> None:
        entries = {
            name: feature_entry(name, *to_list(name, values[name])[:2]) for name in sorted(values)
        }
        before = b"".join(entry for name, entry in entries.items() if name < IMAGE)
        after = b"".join(entry for name, entry in entries.items() if name > IMAGE)
        label = -1 if encoded.label is None else encoded.label
        self._rows.append(self._offset, len(path), len(before), len(after), label, size, version)
        blob = path + before + after
        self._blobs.write(blob)
        self._hash.update(b"%d %d %d " % (len(path), size, version) + blob)
        self._offset += len(blob)
        self._examples += 1
        self._count_bytes(len(before) + len(after), size)

    def _count_bytes(self, packed_bytes: int, image_bytes: int) -> None:
        """Add the size of a record with `packed_bytes` of other features to the sums."""
        if self._image_column:
            packed_bytes += len(feature_entry(IMAGE, "bytes", field(1, bytes(image_bytes))))
        record_bytes = len(field(1, bytes(packed_bytes))) + FRAME_BYTES
        self._bytes += record_bytes
        self._max_bytes = max(self._max_bytes, record_bytes)

    def source(self, labels: tuple[str, ...]) -> TableSource:
        """Return the scanned source; call it after the `with` block."""
        stats = SourceStats(
            num_examples=self._examples,
            total_bytes=self._bytes,
            max_record_bytes=self._max_bytes,
            label_names=labels,
            fingerprint=f"table-{self._hash.hexdigest()}",
        )
        return TableSource(
            self._path,
            stats,
            RowFile(self._row_path, _ROW),
            BlobFile(self._blob_path),
            self._observer.schema,
            self._images.files if self._image_column else None,
        )
