"""A tree of class folders of pictures: ``cats/1.jpg``, ``dogs/2.png``, deeper ones included.

The classes are the sorted names of the folders; a picture's bytes pass through as they are.
"""

import hashlib
import os
import struct
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final

from tenfold.data.errors import UserError
from tenfold.data.example import Features, feature_entry, field, to_list, varint
from tenfold.data.manifest import IMAGE, LABEL, Feature
from tenfold.data.pictures import picture_shape
from tenfold.data.records import FRAME_BYTES
from tenfold.data.schema import Schema
from tenfold.data.sources.base import BadRecord, Encoded, SourceChanged
from tenfold.data.specs import SourceStats
from tenfold.data.table import Table, Texts

SUFFIXES: Final = (".jpg", ".jpeg", ".png")

# Offset and length of the path in the texts, class, bytes, time of the last change in ns.
_ROW: Final = struct.Struct("<QHIQq")
_SUFFIXES: Final = tuple(suffix.encode() for suffix in SUFFIXES)
_DOT: Final = ord(".")
_LABEL_FEATURE: Final = Feature(LABEL, "int64", ())


class FolderSource:
    """The pictures below the class folders of `root`, by class, then by path."""

    notes: tuple[str, ...]

    def __init__(
        self, root: str, stats: SourceStats, rows: Table, paths: Texts, notes: tuple[str, ...] = ()
    ) -> None:
        self.root = root
        self.stats = stats
        self.notes = notes
        self._rows = rows
        self._paths = paths
        self._prefix = os.fsencode(root) + b"/"

    def encoded(self, index: int) -> Encoded:
        """Returns the picture and its class, packed; raises as `Source.encoded`."""
        data, label, shape = self._picture(index)
        return Encoded(_pack(data, label), _schema_of(shape), label)

    def features(self, index: int) -> Features:
        """Returns ``image`` (bytes) and ``label``; raises as `Source.features`."""
        data, label, _ = self._picture(index)
        return {IMAGE: data, LABEL: label}

    def name(self, index: int) -> str:
        """Returns the picture's path."""
        offset, length, *_ = self._rows[index]
        return shown_path(self._prefix + self._paths(offset, length))

    def _picture(self, index: int) -> tuple[bytes, int, tuple[int, int, int]]:
        offset, length, label, size, mtime_ns = self._rows[index]
        path = self._prefix + self._paths(offset, length)
        data = read_unchanged(path, size, mtime_ns)
        try:
            return data, label, picture_shape(data)
        except ValueError as error:
            raise BadRecord(str(error)) from None


def read_unchanged(path: bytes, size: int, mtime_ns: int) -> bytes:
    """Returns the bytes of a file that a scan has seen with this size and time.

    Raises:
      SourceChanged: it is gone, or of another size or time.
      BadRecord: it cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            status = os.fstat(descriptor)
            data = os.read(descriptor, size)
            while len(data) < size and (more := os.read(descriptor, size - len(data))):
                data += more
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise SourceChanged(f"{os.fsdecode(path)} has gone since the source was scanned") from None
    except OSError as error:
        raise BadRecord(f"it cannot be read ({error.strerror})") from error
    if (status.st_size, status.st_mtime_ns, len(data)) != (size, mtime_ns, size):
        raise SourceChanged(f"{os.fsdecode(path)} has changed since the source was scanned")
    return data


@lru_cache(maxsize=1 << 16)
def _label_entry(label: int) -> bytes:
    return feature_entry(LABEL, *to_list(LABEL, label)[:2])


@lru_cache(maxsize=1 << 12)
def _schema_of(shape: tuple[int, int, int]) -> Schema:
    return (Feature(IMAGE, "image", shape), _LABEL_FEATURE)


_NAME_FIELD: Final = field(1, IMAGE.encode())


def _pack(data: bytes, label: int) -> bytes:
    """Returns the Example of one picture, as `encode_example` would, in one copy of it.

    The lengths nest: Features, map entry, Feature, BytesList, bytes.
    """
    tail = _label_entry(label)
    head = b"\x0a" + varint(len(data))
    size = len(head) + len(data)
    for key in (b"\x0a", b"\x12"):
        prefix = key + varint(size)
        head = prefix + head
        size += len(prefix)
    head = b"\x0a" + varint(len(_NAME_FIELD) + size) + _NAME_FIELD + head
    total = len(head) + len(data) + len(tail)
    return b"".join((b"\x0a", varint(total), head, data, tail))


def _record_bytes(size: int, label: int) -> int:
    """Returns the framed bytes of a picture of `size` bytes, as `_pack` makes them."""
    value = _as_field(_as_field(_as_field(size)))
    features = _as_field(len(_NAME_FIELD) + value) + len(_label_entry(label))
    return _as_field(features) + FRAME_BYTES


def _as_field(size: int) -> int:
    """Returns the bytes of a message of `size` bytes as a field of another."""
    return size + 1 + ((size or 1).bit_length() + 6) // 7


def scan_folder(root: str, scratch: Path) -> FolderSource:
    """Returns the class-folder tree at `root`, after listing it (no picture is opened).

    Raises:
      UserError: there are no class folders, or one has no pictures or a name that cannot be
        a label.
    """
    root = os.path.abspath(root)
    labels = _class_folders(root)
    base = len(os.fsencode(os.path.join(root, "")))
    scan = _Scan(scratch)
    with scan:
        for label, name in enumerate(labels):
            folder = os.path.join(root, name)
            pictures = sorted(scan.pictures(os.fsencode(folder)))
            if not pictures:
                raise UserError(
                    f"class folder '{folder}' has no pictures ({', '.join(SUFFIXES)}): "
                    "add some, convert what there is, or remove the folder"
                )
            scan.add(pictures, label, base)
        scan.leave_out(_strays(root))
    return FolderSource(root, scan.stats(labels), *scan.tables(), scan.notes())


def shown_path(path: bytes) -> str:
    """Returns a path as it is shown in one line: what cannot be, as in a Python text."""
    text = path.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _class_folders(root: str) -> tuple[str, ...]:
    with os.scandir(root) as entries:
        names = sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    if not names:
        raise UserError(
            f"source '{root}' has no class folders: pictures must lie in one folder per class"
        )
    for name in names:
        if not name.isprintable():  # lone surrogates, which stand for no UTF-8, are not either
            raise UserError(
                f"class folder {os.path.join(root, name)!r}: the name has characters that cannot "
                "be shown, and becomes a label: rename it"
            )
    return tuple(names)


def _strays(root: str) -> list[bytes]:
    """Returns the pictures that lie beside the class folders, in none of them."""
    with os.scandir(os.fsencode(root)) as entries:
        return sorted(
            entry.path
            for entry in entries
            if entry.name.lower().endswith(_SUFFIXES) and entry.name[0] != _DOT
        )


class _Scan:
    """A scan under way: what it adds up, and the tables that it fills.

    The fingerprint is a hash of both tables: paths, classes, sizes and times, in order.
    """

    def __init__(self, scratch: Path) -> None:
        self._rows = scratch / "folder.rows"
        self._paths = scratch / "folder.paths"
        self._examples = self._bytes = self._largest = self._skipped = 0
        self._first_skipped = b""
        self._hash = hashlib.blake2b(digest_size=8)

    def __enter__(self) -> "_Scan":
        self._rows_file = open(self._rows, "wb")
        self._paths_file = open(self._paths, "wb")
        return self

    def __exit__(self, *error: object) -> None:
        self._rows_file.close()
        self._paths_file.close()

    def pictures(
        self, folder: bytes, above: tuple[tuple[int, int], ...] = ()
    ) -> Iterator[tuple[bytes, int, int]]:
        """Yields path, bytes and time of every picture in a class folder.

        Raises:
          UserError: a link leads back to a folder that it lies in, one of `above` or this.
        """
        status = os.stat(folder)
        here = (status.st_dev, status.st_ino)
        if here in above:
            raise UserError(
                f"source folder '{shown_path(folder)}' is a link to a folder that it lies in: "
                "its pictures would come again without end; remove the link"
            )
        with os.scandir(folder) as entries:
            for entry in entries:
                name = entry.name
                if name[0] == _DOT:
                    continue
                if name.lower().endswith(_SUFFIXES) and entry.is_file():
                    status = entry.stat()
                    yield entry.path, status.st_size, status.st_mtime_ns
                elif entry.is_dir():
                    yield from self.pictures(entry.path, (*above, here))
                else:
                    self.leave_out([entry.path])

    def leave_out(self, paths: Sequence[bytes]) -> None:
        """Counts files that are not used."""
        self._skipped += len(paths)
        if paths and not self._first_skipped:
            self._first_skipped = paths[0]

    def add(self, pictures: Sequence[tuple[bytes, int, int]], label: int, base: int) -> None:
        """Takes in one class; what follows the first `base` bytes of a path is kept."""
        offset = self._paths_file.tell()
        rows, paths = [], []
        for path, size, mtime_ns in pictures:
            paths.append(path[base:])
            rows.append(_ROW.pack(offset, len(path) - base, label, size, mtime_ns))
            offset += len(path) - base
        sizes = [_record_bytes(size, label) for _, size, _ in pictures]
        self._examples += len(sizes)
        self._bytes += sum(sizes)
        self._largest = max(self._largest, max(sizes))
        for file, parts in ((self._rows_file, rows), (self._paths_file, paths)):
            joined = b"".join(parts)
            self._hash.update(joined)
            file.write(joined)

    def tables(self) -> tuple[Table, Texts]:
        """Returns the rows and the paths."""
        return Table(self._rows, _ROW.format), Texts(self._paths)

    def notes(self) -> tuple[str, ...]:
        """Returns what the user should hear of."""
        if not self._skipped:
            return ()
        more = f" and {self._skipped - 1:,} more" if self._skipped > 1 else ""
        return (
            f"left out, no {', '.join(SUFFIXES)} file in a class folder: "
            f"{shown_path(self._first_skipped)}{more}",
        )

    def stats(self, label_names: tuple[str, ...]) -> SourceStats:
        """Returns the sums."""
        return SourceStats(
            num_examples=self._examples,
            total_bytes=self._bytes,
            max_record_bytes=self._largest,
            label_names=label_names,
            fingerprint=f"folder-{self._hash.hexdigest()}",
        )
