"""A table of examples: a column of paths to images, one of labels, and further features.

The scan packs all but the images once; an image's bytes are read when its record is written
and pass through as they are. Paths are taken from the table's own folder.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Protocol

from tenfold.data.errors import UserError
from tenfold.data.format.example import Features, decode_example, feature_entry, field, to_list
from tenfold.data.format.image_header import image_shape
from tenfold.data.format.manifest import IMAGE, LABEL, Feature
from tenfold.data.format.row_file import RowFile, RowFileWriter, Texts
from tenfold.data.format.schema import Schema, SchemaError, SchemaObserver
from tenfold.data.format.tfrecord import FRAME_BYTES
from tenfold.data.planning.layout import SourceStats
from tenfold.data.sources.base import Encoded, UnusableRecord
from tenfold.data.sources.features import (
    LABEL_NAMES,
    PATH_NAMES,
    SourceOptions,
    class_index,
    encode_features,
    is_one_hot,
    pick,
    rename,
)
from tenfold.data.sources.scanned_files import Files, LocalFiles
from tenfold.data.sources.table_rows import read_rows

# Offset of the path, then of the packed rest: lengths of path, of the features before `image`
# and of those after it; class (or -1); bytes and version of the image.
_ROW: Final = "<QIIIqQq"


class TableSource:
    """The rows of one table; `images` are those that a column of paths names, if any."""

    notes: tuple[str, ...] = ()

    def __init__(
        self,
        path: str,
        stats: SourceStats,
        rows: RowFile,
        texts: Texts,
        schema: Schema,
        images: Files | None,
    ) -> None:
        self.stats = stats
        self.reads_at_once = images.reads_at_once if images else 1
        self._path = path
        self._rows = rows
        self._texts = texts
        self._schema = schema
        self._images = images

    def encoded(self, index: int) -> Encoded:
        """Returns the row and its image, packed; raises as `Source.encoded`."""
        offset, path_length, before, after, label, size, version = self._rows[index]
        start = offset + path_length
        entries = [self._texts(start, before), self._texts(start + before, after)]
        schema = self._schema
        if self._images:
            path = self._texts(offset, path_length)
            image, feature = _with_feature(self._images.read(path, size, version))
            entries.insert(1, feature_entry(IMAGE, "bytes", field(1, image)))
            schema = tuple(sorted((*schema, feature), key=lambda feature: feature.name))
        payload = field(1, b"".join(entries))
        return Encoded(payload, schema, label if label >= 0 else None)

    def features(self, index: int) -> Features:
        """Returns the row's values, with the image's bytes; raises as `encoded`."""
        shapes = {feature.name: feature.shape for feature in self._schema}
        payload = self.encoded(index).payload
        return {
            name: values[0] if shapes.get(name, ()) == () else values
            for name, (_, values) in decode_example(payload).items()
        }

    def name(self, index: int) -> str:
        """Returns the image's path, or the table and the row."""
        if not self._images:
            return f"{self._path}: row {index}"
        offset, length, *_ = self._rows[index]
        return os.fsdecode(self._texts(offset, length))


def _with_feature(image: bytes) -> tuple[bytes, Feature]:
    try:
        return image, Feature(IMAGE, "image", image_shape(image))
    except ValueError as error:
        raise UnusableRecord(str(error)) from None


class Images(Protocol):
    """The images that a table may name, before they are read."""

    files: Files

    def look(self, name: str) -> tuple[bytes, int, int]:
        """Returns full path, bytes and version of the image that a row calls `name`.

        Raises:
          OSError, ValueError: there is none.
        """

    def path(self, name: str) -> str:
        """Returns the full path that a row means by `name`."""


class LocalImages:
    """Images whose paths are taken from the local `folder`."""

    def __init__(self, folder: str) -> None:
        self.files: Files = LocalFiles()
        self._folder = folder

    def look(self, name: str) -> tuple[bytes, int, int]:
        """Returns full path, bytes and time of change of an image; see `Images`."""
        status = os.stat(self.path(name))
        return os.fsencode(self.path(name)), status.st_size, status.st_mtime_ns

    def path(self, name: str) -> str:
        """Returns the full path that a row means by `name`."""
        return os.path.join(self._folder, name)


def scan_table(
    path: str, scratch: Path, options: SourceOptions, images: Images | None = None
) -> TableSource:
    """Returns the rows of a table; the `images` that they name lie in its folder by default.

    Raises:
      UserError: the table cannot be read, a row does not fit the others, an image is missing.
    """
    images = images or LocalImages(os.path.dirname(os.path.abspath(path)))
    scan = _Scan(path, scratch, options, images)
    labels = scan.labels()
    with scan:
        for number, row in enumerate(read_rows(path)):
            scan.add(number, row, labels)
    return scan.source(tuple(labels))


class _Scan:
    """A scan under way."""

    def __init__(self, path: str, scratch: Path, options: SourceOptions, images: Images) -> None:
        self._path = path
        self._images = images
        self._options = options
        self._rows, self._texts = scratch / "table.rows", scratch / "table.texts"
        self._observer = SchemaObserver()
        self._examples = self._bytes = self._largest = self._offset = 0
        self._hash = hashlib.blake2b(digest_size=8)
        first = next(read_rows(path), None)
        if first is None:
            raise UserError(f"source '{path}' has no rows")
        self._label = pick(options.label, LABEL_NAMES, first, "label")
        self._image = pick(options.image, PATH_NAMES, first, "image")
        if self._image and not isinstance(first[self._image], str):
            self._image = ""

    def __enter__(self) -> "_Scan":
        self._writer = RowFileWriter(self._rows, _ROW)
        self._file = open(self._texts, "wb", buffering=1 << 20)
        return self

    def __exit__(self, *error: Any) -> None:
        self._writer.__exit__(*error)
        self._file.close()

    def labels(self) -> dict[str, int]:
        """Returns the index of every label that is text, sorted by name; empty for numbers."""
        if not self._label:
            return {}
        texts: set[str] = set()
        for row in self._numbered():
            if isinstance(row[1].get(self._label), str):
                texts.add(row[1][self._label])
        return {name: index for index, name in enumerate(sorted(texts))}

    def _numbered(self) -> Iterator[tuple[int, dict[str, Any]]]:
        return enumerate(read_rows(self._path))

    def add(self, number: int, row: dict[str, Any], labels: dict[str, int]) -> None:
        """Packs one row."""
        where = f"source '{self._path}', row {number}"
        values = rename(row, self._image, self._label)
        image = values.pop(IMAGE) if self._image else None
        if LABEL in values:
            values[LABEL] = self._class(values[LABEL], labels)
        try:
            encoded = encode_features(values)
            self._observer.add(encoded.schema)
        except (UnusableRecord, SchemaError) as error:
            raise UserError(f"{where}: {error}") from error
        path, size, version = self._stat(where, image)
        self._write(values, encoded, path, size, version)

    def _class(self, value: Any, labels: dict[str, int]) -> Any:
        if isinstance(value, str):
            return labels[value]
        never = self._options.one_hot == "never"
        if isinstance(value, list) and not never and is_one_hot(value):
            return class_index(value)
        return value

    def _stat(self, where: str, image: Any) -> tuple[bytes, int, int]:
        if not self._image:
            return b"", 0, 0
        try:
            return self._images.look(str(image))
        except (OSError, ValueError) as error:
            path = self._images.path(str(image))
            raise UserError(
                f"{where}: there is no image '{path}' (paths are taken from the table's folder)"
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
        self._writer.append(self._offset, len(path), len(before), len(after), label, size, version)
        text = path + before + after
        self._file.write(text)
        self._hash.update(b"%d %d %d " % (len(path), size, version) + text)
        self._offset += len(text)
        self._examples += 1
        image = len(feature_entry(IMAGE, "bytes", field(1, bytes(size)))) if self._image else 0
        record = len(field(1, bytes(len(before) + len(after) + image))) + FRAME_BYTES
        self._bytes += record
        self._largest = max(self._largest, record)

    def source(self, labels: tuple[str, ...]) -> TableSource:
        """Returns what was scanned."""
        stats = SourceStats(
            num_examples=self._examples,
            total_bytes=self._bytes,
            max_record_bytes=self._largest,
            label_names=labels,
            fingerprint=f"table-{self._hash.hexdigest()}",
        )
        return TableSource(
            self._path,
            stats,
            RowFile(self._rows, _ROW),
            Texts(self._texts),
            self._observer.schema,
            self._images.files if self._image else None,
        )
