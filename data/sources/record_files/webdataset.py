"""WebDataset: tar files whose members with one key make one record.

``train-000.tar`` holds ``a/0001.jpg``, ``a/0001.cls``, ``a/0001.json``, …: the key is the path up
to the first dot of the file's name, the rest is the field. The scan reads the headers of the
members; their data is later read at its offset. Nothing is extracted, and the paths in an archive
are keys, never paths.
"""

import hashlib
import os
from array import array
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from tenfold.data.errors import UserError
from tenfold.data.format.example import Features
from tenfold.data.format.image_header import image_shape, is_image
from tenfold.data.format.manifest import LABEL
from tenfold.data.format.row_file import BlobFile, RowFile, RowFileWriter
from tenfold.data.format.tfrecord import FRAME_BYTES
from tenfold.data.planning.layout import SourceStats
from tenfold.data.sources.base import Encoded, SourceChanged, SourceOptions, UnusableRecord
from tenfold.data.sources.class_labels import NO_CLASSES, DistinctLabels, LabelMap
from tenfold.data.sources.features import (
    IMAGE_NAMES,
    LABEL_NAMES,
    choose_feature,
    encode_features,
    with_standard_names,
)
from tenfold.data.sources.record_files.file_splits import own_splits
from tenfold.data.sources.record_files.tar_members import TarRecords, printable, read_tar
from tenfold.data.sources.record_files.unpacked import unpack_files
from tenfold.data.sources.record_files.webdataset_fields import (
    decode_fields,
    is_image_field,
    refused_field,
)
from tenfold.data.sources.scanned_files import read_error
from tenfold.data.units import plural

# A record: numbers of the tar, its first member and its members; offset and length of its key.
_RECORD: Final = "<IQHQI"
# A member: offset and size of its data; the number of its field's name.
_MEMBER: Final = "<QQH"
_SAMPLED: Final = 64
_MAX_FIELDS: Final = 100


class WebDatasetSource:
    """The records of tar files, in the order of the tars and of the first member of each record.

    Args:
      files: The local tar files; `shown` are their names in messages.
      tables: Records, members and keys.
      fields: The names of all fields.
      notes: Remarks of the scan.
    """

    def __init__(
        self,
        files: Sequence[str],
        shown: Sequence[str],
        tables: tuple[RowFile, RowFile, BlobFile],
        fields: Sequence[str],
        notes: Sequence[str] = (),
    ) -> None:
        self.stats = SourceStats(0, 0, 0)
        self.notes = tuple(notes)
        self._files = tuple(files)
        self._versions = tuple(_version(file) for file in files)
        self._shown = tuple(shown)
        self._records, self._members, self._keys = tables
        self.splits = own_splits(shown, self._records)
        self._fields = tuple(fields)
        self._image = self._label = ""
        self._classes = NO_CLASSES
        self._open: dict[int, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_open": {}}

    def __len__(self) -> int:
        return len(self._records)

    def encoded(self, index: int) -> Encoded:
        """Return the record, packed; see `Source`."""
        data = self._data(index)
        for field, content in data.items():
            if is_image_field(field) and not is_image(content):
                try:
                    image_shape(content)  # names the format and the remedy
                except ValueError as error:
                    raise UnusableRecord(f"field '{field}': {error}") from None
        return encode_features(self._features(data))

    def features(self, index: int) -> Features:
        """Return the values of the record's fields; see `Source`."""
        return self._features(self._data(index))

    def name(self, index: int) -> str:
        """Return the tar and the key."""
        tar, _, _, offset, length = self._records[index]
        key = self._keys.read(offset, length).decode("utf-8", "backslashreplace")
        return f"{self._shown[tar]}: {printable(key)}"

    def choose_names(self, options: SourceOptions) -> None:
        """Find the features that hold the image and the label, in the first sound record.

        Raises:
          UserError: there is no feature of a name that the user chose.
        """
        for index in range(min(len(self), _SAMPLED)):
            with suppress(ValueError):
                names = decode_fields(self._data(index))
                break
        else:
            return
        self._image = choose_feature(options.image, IMAGE_NAMES, names, "image")
        self._label = choose_feature(options.label, LABEL_NAMES, names, "label")

    def map_classes(self, classes: Sequence[str] | None) -> LabelMap:
        """Read the labels of all records and map them; only their fields are read.

        Raises:
          UserError: a label is not among `classes`.
        """
        labels = DistinctLabels()
        fields = [f for f in self._fields if f in ("cls", "json") or f == self._label]
        for index in range(len(self)) if self._label else ():
            with suppress(ValueError):  # a broken record is found, and named, when it is written
                labels.add(decode_fields(self._data(index, fields)).get(self._label))
        self._classes = labels.mapping(classes)
        if self._classes.note:
            self.notes = (*self.notes, self._classes.note)
        return self._classes

    def _features(self, data: Mapping[str, bytes]) -> Features:
        try:
            found = with_standard_names(decode_fields(data), self._image, self._label)
            if LABEL in found:
                found[LABEL] = self._classes.stored(found[LABEL])
            return found
        except ValueError as error:
            raise UnusableRecord(str(error)) from error

    def _data(self, index: int, fields: Sequence[str] | None = None) -> dict[str, bytes]:
        """Return the content of a record's fields, or of those among `fields`."""
        tar, first, count, _, _ = self._records[index]
        found = {}
        for number in range(first, first + count):
            offset, size, field = self._members[number]
            name = self._fields[field]
            if fields is None or name in fields:
                found[name] = self._read(tar, offset, size)
        return found

    def _read(self, tar: int, offset: int, size: int) -> bytes:
        try:
            if tar not in self._open:
                self._open[tar] = os.open(self._files[tar], os.O_RDONLY)
            data = os.pread(self._open[tar], size, offset)
            while len(data) < size:
                rest = os.pread(self._open[tar], size - len(data), offset + len(data))
                if not rest:
                    break
                data += rest
            changed = _version(self._open[tar]) != self._versions[tar]
        except OSError as error:
            raise read_error(self._shown[tar], error) from error
        if changed or len(data) != size:
            raise SourceChanged(f"{self._shown[tar]} has changed since the source was scanned")
        return data


def _version(file: str | int) -> tuple[int, int]:
    status = os.stat(file)
    return status.st_size, status.st_mtime_ns


def scan_webdataset(
    files: Sequence[str], scratch: Path, options: SourceOptions, *, fingerprint: str = ""
) -> WebDatasetSource:
    """Scan the members of tar files, and the labels of their records.

    Args:
      files: Local tar files, plain or compressed by GZIP.
      scratch: Local folder for the results of the scan.
      options: Names of image and label, and the classes.
      fingerprint: Identifies the content; by default made of paths, sizes and mtimes.

    Raises:
      UserError: a tar is cut or damaged, or holds a field that cannot be read; there are no
        records; or a label is not among the classes.
    """
    local = unpack_files(files, scratch)
    scan = _Scan(scratch)
    with scan:
        for number, (path, shown) in enumerate(zip(local, files, strict=True)):
            scan.add_tar(number, read_tar(path, shown), shown)
    if not scan.sizes:
        raise UserError(
            f"source '{files[0]}': {plural(len(files), 'tar file')} without a record: members are "
            "called KEY.FIELD, as 0001.jpg and 0001.cls"
        )
    source = scan.source(local, files)
    source.choose_names(options)
    classes = source.map_classes(options.classes)
    chosen = repr((options.classes, options.image, options.label))
    source.stats = SourceStats(
        *_sizes(source, scan.sizes),
        label_names=classes.names,
        num_classes=classes.num_classes,
        fingerprint=_digest(fingerprint or _identity(files), chosen),
    )
    return source


def _sizes(source: WebDatasetSource, sizes: Sequence[int]) -> tuple[int, int, int]:
    """Return number, total and largest size of the records.

    Args:
      source: The records; about 64 and the largest are packed.
      sizes: The bytes of all fields of each record.
    """
    largest = max(range(len(sizes)), key=sizes.__getitem__)
    sample = [*range(0, len(sizes), max(len(sizes) // _SAMPLED, 1)), largest]
    extra = {}
    for index in sample:
        with suppress(UnusableRecord):
            extra[index] = len(source.encoded(index).payload) + FRAME_BYTES - sizes[index]
    mean = sum(extra.values()) / len(extra) if extra else FRAME_BYTES
    total = max(round(sum(sizes) + mean * len(sizes)), 1)
    return len(sizes), total, round(max(sizes[largest] + extra.get(largest, mean), 1))


def _identity(files: Sequence[str]) -> str:
    return "\0".join(f"{os.path.abspath(file)}\0{_version(file)}" for file in files)


def _digest(*parts: str) -> str:
    return f"webdataset-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:16]}"


class _Scan:
    """A scan in progress: three files in the scratch folder, and the size of each record."""

    def __init__(self, scratch: Path) -> None:
        self._paths = [scratch / f"webdataset.{name}" for name in ("records", "members", "keys")]
        self._fields: dict[str, int] = {}
        self._first_ignored = ""
        self._ignored = self._member_count = self._key_bytes = 0
        self.sizes = array("Q")

    def __enter__(self) -> "_Scan":
        self._record_rows = RowFileWriter(self._paths[0], _RECORD)
        self._member_rows = RowFileWriter(self._paths[1], _MEMBER)
        self._key_file = open(self._paths[2], "wb")
        return self

    def __exit__(self, *error: Any) -> None:
        self._record_rows.__exit__(*error)
        self._member_rows.__exit__(*error)
        self._key_file.close()

    def add_tar(self, number: int, tar: TarRecords, shown: str) -> None:
        """Add the records of one tar.

        Raises:
          UserError: a field is of a kind that is left to the user's function.
        """
        for key, members in tar.records.items():
            packed = key.encode("utf-8", "surrogateescape")
            self._record_rows.append(
                number, self._member_count, len(members), self._key_bytes, len(packed)
            )
            self._key_file.write(packed)
            self._key_bytes += len(packed)
            self._member_count += len(members)
            self.sizes.append(sum(member.size for member in members.values()))
            for field, member in members.items():
                number_of_field = self._number(field, f"{shown}: {printable(key)}.{field}")
                self._member_rows.append(member.offset, member.size, number_of_field)
        self._ignored += tar.num_ignored
        if tar.ignored and not self._first_ignored:
            self._first_ignored = f"{shown}: {tar.ignored}"

    def _number(self, field: str, where: str) -> int:
        if field not in self._fields:
            if kind := refused_field(field):
                raise UserError(
                    f"source file '{where}' is {kind}: decode it in a function of your own, and "
                    "give that as the source, module:function"
                )
            if len(self._fields) == _MAX_FIELDS:
                raise UserError(
                    f"source file '{where}': there are more than {_MAX_FIELDS} different fields: "
                    "the key of a record must end at the first dot of a file's name"
                )
            self._fields[field] = len(self._fields)
        return self._fields[field]

    def source(self, local: Sequence[str], shown: Sequence[str]) -> WebDatasetSource:
        """Return the source, without sizes and classes; call it after the `with` block."""
        tables = (
            RowFile(self._paths[0], _RECORD),
            RowFile(self._paths[1], _MEMBER),
            BlobFile(self._paths[2]),
        )
        return WebDatasetSource(local, shown, tables, list(self._fields), self._notes())

    def _notes(self) -> list[str]:
        if not self._ignored:
            return []
        more = f" and {self._ignored - 1:,} more" if self._ignored > 1 else ""
        return [f"ignored, not a file called KEY.FIELD: {self._first_ignored}{more}"]
