"""A tree of class folders of images: ``cats/1.jpg``, ``dogs/2.png``, deeper ones included.

The classes are the sorted names of the folders; an image's bytes pass through as they are.
"""

import hashlib
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from functools import lru_cache
from pathlib import Path
from typing import Final, Protocol

from tenfold.data.errors import UserError
from tenfold.data.format.example import Features, feature_entry, field, to_list, varint
from tenfold.data.format.image_header import image_shape
from tenfold.data.format.manifest import IMAGE, LABEL, Feature
from tenfold.data.format.row_file import RowFile, Texts
from tenfold.data.format.schema import Schema
from tenfold.data.format.tfrecord import FRAME_BYTES
from tenfold.data.planning.layout import SourceStats
from tenfold.data.sources.base import Encoded, UnusableRecord
from tenfold.data.sources.scanned_files import Files, LocalFiles

SUFFIXES: Final = (".jpg", ".jpeg", ".png")

# Offset and length of the path in the texts, class, bytes, version (see `Files`).
_ROW: Final = struct.Struct("<QHIQq")
_SUFFIXES: Final = tuple(suffix.encode() for suffix in SUFFIXES)
_DOT: Final = ord(".")
_LABEL_FEATURE: Final = Feature(LABEL, "int64", ())


class FolderSource:
    """The images below the class folders of `root`, by class, then by path."""

    notes: tuple[str, ...]

    def __init__(
        self, root: str, files: Files, stats: SourceStats, rows: RowFile, paths: Texts,
        notes: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        self.root = root
        self.stats = stats
        self.notes = notes
        self.reads_at_once = files.reads_at_once
        self._files = files
        self._rows = rows
        self._paths = paths
        self._prefix = os.fsencode(root) + b"/"

    def encoded(self, index: int) -> Encoded:
        """Returns the image and its class, packed; raises as `Source.encoded`."""
        data, label, shape = self._image(index)
        return Encoded(_pack(data, label), _schema_of(shape), label)

    def features(self, index: int) -> Features:
        """Returns ``image`` (bytes) and ``label``; raises as `Source.features`."""
        data, label, _ = self._image(index)
        return {IMAGE: data, LABEL: label}

    def name(self, index: int) -> str:
        """Returns the image's path."""
        offset, length, *_ = self._rows[index]
        return shown_path(self._prefix + self._paths(offset, length))

    def _image(self, index: int) -> tuple[bytes, int, tuple[int, int, int]]:
        offset, length, label, size, version = self._rows[index]
        data = self._files.read(self._prefix + self._paths(offset, length), size, version)
        try:
            return data, label, image_shape(data)
        except ValueError as error:
            raise UnusableRecord(str(error)) from None


@lru_cache(maxsize=1 << 16)
def _label_entry(label: int) -> bytes:
    return feature_entry(LABEL, *to_list(LABEL, label)[:2])


@lru_cache(maxsize=1 << 12)
def _schema_of(shape: tuple[int, int, int]) -> Schema:
    return (Feature(IMAGE, "image", shape), _LABEL_FEATURE)


_NAME_FIELD: Final = field(1, IMAGE.encode())


def _pack(data: bytes, label: int) -> bytes:
    """Returns the Example of one image, as `encode_example` would, in one copy of it.

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
    """Returns the framed bytes of an image of `size` bytes, as `_pack` makes them."""
    value = _as_field(_as_field(_as_field(size)))
    features = _as_field(len(_NAME_FIELD) + value) + len(_label_entry(label))
    return _as_field(features) + FRAME_BYTES


def _as_field(size: int) -> int:
    """Returns the bytes of a message of `size` bytes as a field of another."""
    return size + 1 + ((size or 1).bit_length() + 6) // 7


class Tree(Protocol):
    """Class folders, listed. An image is its path below `root`, its bytes and its version."""

    root: str
    files: Files

    def classes(self) -> list[str]:
        """Returns the sorted names of the class folders."""

    def listed(self, names: Sequence[str]) -> Iterator["Listing"]:
        """Yields what lies in each of the class folders `names`."""

    def strays(self) -> list[bytes]:
        """Returns the images that lie beside the class folders, in none of them."""


@dataclass
class Listing:
    """The files of a class folder: images (`Tree` says of what each is made), and others."""

    images: list[tuple[bytes, int, int]] = dataclass_field(default_factory=list)
    others: list[bytes] = dataclass_field(default_factory=list)


def scan_folder(root: str, scratch: Path) -> FolderSource:
    """Returns the class-folder tree at `root`, a local path; raises as `scan_tree`."""
    return scan_tree(LocalTree(root), scratch)


def scan_tree(tree: Tree, scratch: Path) -> FolderSource:
    """Returns a class-folder tree, after listing it (no image is opened).

    Raises:
      UserError: there are no class folders, or one has no images or a name that cannot be
        a label.
    """
    labels = _checked_classes(tree)
    scan = _Scan(scratch)
    with scan:
        for label, listing in enumerate(tree.listed(labels)):
            if not listing.images:
                raise UserError(
                    f"class folder '{tree.root}/{labels[label]}' has no images "
                    f"({', '.join(SUFFIXES)}): add some, convert what there is, or remove the "
                    "folder"
                )
            scan.add(sorted(listing.images), label)
            scan.leave_out(listing.others)
        scan.leave_out(tree.strays())
    prefix = os.fsencode(tree.root) + b"/"
    return FolderSource(
        tree.root, tree.files, scan.stats(labels), *scan.tables(), scan.notes(prefix)
    )


def shown_path(path: bytes) -> str:
    """Returns a path as it is shown in one line: what cannot be, as in a Python text."""
    text = path.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _checked_classes(tree: Tree) -> tuple[str, ...]:
    names = tuple(tree.classes())
    if not names:
        raise UserError(
            f"source '{tree.root}' has no class folders: images must lie in one folder per class"
        )
    for name in names:
        if not name.isprintable():  # lone surrogates, which stand for no UTF-8, are not either
            raise UserError(
                f"class folder {f'{tree.root}/{name}'!r}: the name has characters that cannot "
                "be shown, and becomes a label: rename it"
            )
    return names


def is_image_name(name: bytes) -> bool:
    """Says whether a file of this name counts as an image, unless it is hidden."""
    return name.lower().endswith(_SUFFIXES)


class LocalTree:
    """Class folders below the local folder `root`."""

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(root)
        self.files: Files = LocalFiles()
        self._base = len(os.fsencode(os.path.join(self.root, "")))

    def classes(self) -> list[str]:
        """Returns the sorted names of the class folders."""
        with os.scandir(self.root) as entries:
            return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))

    def listed(self, names: Sequence[str]) -> Iterator[Listing]:
        """Yields what lies in each of the class folders `names`.

        Raises:
          UserError: a link leads back to a folder that it lies in.
        """
        for name in names:
            listing = Listing()
            self._list(os.fsencode(os.path.join(self.root, name)), listing, ())
            yield listing

    def strays(self) -> list[bytes]:
        """Returns the images that lie beside the class folders, in none of them."""
        with os.scandir(os.fsencode(self.root)) as entries:
            return sorted(e.name for e in entries if is_image_name(e.name) and e.name[0] != _DOT)

    def _list(self, folder: bytes, found: Listing, above: tuple[tuple[int, int], ...]) -> None:
        """Adds the files below `folder`, which lies in the folders `above`."""
        status = os.stat(folder)
        here = (status.st_dev, status.st_ino)
        if here in above:
            raise UserError(
                f"source folder '{shown_path(folder)}' is a link to a folder that it lies in: "
                "its images would come again without end; remove the link"
            )
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name[0] == _DOT:
                    continue
                path = entry.path[self._base :]
                if is_image_name(entry.name) and entry.is_file():
                    status = entry.stat()
                    found.images.append((path, status.st_size, status.st_mtime_ns))
                elif entry.is_dir():
                    self._list(entry.path, found, (*above, here))
                else:
                    found.others.append(path)


class _Scan:
    """A scan under way: what it adds up, and the tables that it fills.

    The fingerprint is a hash of both tables: paths, classes, sizes and versions, in order.
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

    def leave_out(self, paths: Sequence[bytes]) -> None:
        """Counts files that are not used."""
        self._skipped += len(paths)
        if paths and not self._first_skipped:
            self._first_skipped = paths[0]

    def add(self, images: Sequence[tuple[bytes, int, int]], label: int) -> None:
        """Takes in one class."""
        offset = self._paths_file.tell()
        rows, paths = [], []
        for path, size, version in images:
            paths.append(path)
            rows.append(_ROW.pack(offset, len(path), label, size, version))
            offset += len(path)
        sizes = [_record_bytes(size, label) for _, size, _ in images]
        self._examples += len(sizes)
        self._bytes += sum(sizes)
        self._largest = max(self._largest, max(sizes))
        for file, parts in ((self._rows_file, rows), (self._paths_file, paths)):
            joined = b"".join(parts)
            self._hash.update(joined)
            file.write(joined)

    def tables(self) -> tuple[RowFile, Texts]:
        """Returns the rows and the paths."""
        return RowFile(self._rows, _ROW.format), Texts(self._paths)

    def notes(self, prefix: bytes) -> tuple[str, ...]:
        """Returns what the user should hear of; `prefix` comes before every path."""
        if not self._skipped:
            return ()
        more = f" and {self._skipped - 1:,} more" if self._skipped > 1 else ""
        return (
            f"left out, no {', '.join(SUFFIXES)} file in a class folder: "
            f"{shown_path(prefix + self._first_skipped)}{more}",
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
