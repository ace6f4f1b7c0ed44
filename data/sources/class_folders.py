"""Trees of class folders: ``cats/1.jpg``, ``cats/old/2.png``, ``dogs/3.jpg``, …

The classes are the sorted names of the top folders. The bytes of an image are stored unchanged.
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
from tenfold.data.format.row_file import BlobFile, RowFile
from tenfold.data.format.schema import Schema
from tenfold.data.format.tfrecord import FRAME_BYTES
from tenfold.data.planning.layout import SourceStats
from tenfold.data.planning.own_splits import FeatureValues, code_values
from tenfold.data.sources.base import Encoded, UnusableRecord
from tenfold.data.sources.scanned_files import Files, LocalFiles

SUFFIXES: Final = (".jpg", ".jpeg", ".png")

# Offset and length of the path in the file of paths, class, size in bytes, version (see `Files`).
_ROW: Final = struct.Struct("<QHIQq")
_SUFFIXES: Final = tuple(suffix.encode() for suffix in SUFFIXES)
_DOT: Final = ord(".")
_LABEL_FEATURE: Final = Feature(LABEL, "int64", ())


class FolderSource:
    """The images in the class folders of `root`, ordered by class, then by path."""

    notes: tuple[str, ...]

    def __init__(
        self, root: str, files: Files, stats: SourceStats, rows: RowFile, paths: BlobFile,
        notes: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        self.root = root
        self.stats = stats
        self.notes = notes
        self.concurrent_reads = files.concurrent_reads
        self._files = files
        self._rows = rows
        self._paths = paths
        self._prefix = os.fsencode(root) + b"/"

    def encoded(self, index: int) -> Encoded:
        """Return the image and its class, packed; see `Source`."""
        data, label, shape = self._read(index)
        return Encoded(_pack(data, label), _schema_of(shape), label)

    def features(self, index: int) -> Features:
        """Return ``image`` (encoded bytes) and ``label``; see `Source`."""
        data, label, _ = self._read(index)
        return {IMAGE: data, LABEL: label}

    def feature_values(self, name: str) -> FeatureValues | None:
        """Return the class of every image, without opening one; see `Source`."""
        return code_values(row[2] for row in self._all_rows()) if name == LABEL else None

    def _all_rows(self) -> Iterator[tuple[int, ...]]:
        return (self._rows[index] for index in range(self.stats.num_examples))

    def name(self, index: int) -> str:
        """Return the path of the image."""
        offset, length, *_ = self._rows[index]
        return shown_path(self._prefix + self._paths.read(offset, length))

    def _read(self, index: int) -> tuple[bytes, int, tuple[int, int, int]]:
        """Return the encoded image, its class and its (height, width, channels)."""
        offset, length, label, size, version = self._rows[index]
        data = self._files.read(self._prefix + self._paths.read(offset, length), size, version)
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
    """Return the same Example as `encode_example`, copying the image only once.

    The nested messages, each a key, a length and its content:

        Example > Features > map entry of ``image`` > Feature > BytesList > bytes
                           > map entry of ``label`` (`_label_entry`)

    The head of the image's entry is built from the inside out, because each length counts the
    heads within it.
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
    """Return the size of the framed record that `_pack` makes of an image of `size` bytes."""
    value = _field_bytes(_field_bytes(_field_bytes(size)))
    features = _field_bytes(len(_NAME_FIELD) + value) + len(_label_entry(label))
    return _field_bytes(features) + FRAME_BYTES


def _field_bytes(size: int) -> int:
    """Return the size of a message of `size` bytes with the key and length of a field."""
    return size + 1 + ((size or 1).bit_length() + 6) // 7


@dataclass
class Listing:
    """The files in one class folder, at any depth.

    Attributes:
      images: (path below the root of the tree, size in bytes, version as in `Files`) of each.
      others: Paths of the files that are not images.
    """

    images: list[tuple[bytes, int, int]] = dataclass_field(default_factory=list)
    others: list[bytes] = dataclass_field(default_factory=list)


class Tree(Protocol):
    """A tree of class folders at `root`; `files` reads its images."""

    root: str
    files: Files

    def classes(self) -> list[str]:
        """Return the sorted names of the class folders."""

    def listings(self, names: Sequence[str]) -> Iterator[Listing]:
        """Yield the listing of each of the class folders `names`, in order."""

    def strays(self) -> list[bytes]:
        """Return the images directly in the root, which have no class."""


def scan_folder(root: str, scratch: Path) -> FolderSource:
    """Scan the class folders at `root`, a local path; see `scan_tree`."""
    return scan_tree(LocalTree(root), scratch)


def scan_tree(tree: Tree, scratch: Path) -> FolderSource:
    """Scan a tree of class folders by listing it, without opening an image.

    Raises:
      UserError: there are no class folders, or a class folder has no images, or its name cannot
        be a label.
    """
    labels = _checked_classes(tree)
    scan = _Scan(scratch)
    with scan:
        for label, listing in enumerate(tree.listings(labels)):
            if not listing.images:
                raise UserError(
                    f"class folder '{tree.root}/{labels[label]}' has no images "
                    f"({', '.join(SUFFIXES)}): add some, convert what there is, or remove the "
                    "folder"
                )
            scan.add_class(sorted(listing.images), label)
            scan.add_ignored(listing.others)
        scan.add_ignored(tree.strays())
    prefix = os.fsencode(tree.root) + b"/"
    return FolderSource(
        tree.root, tree.files, scan.stats(labels), *scan.files(), scan.notes(prefix)
    )


def shown_path(path: bytes) -> str:
    """Return a path as one line of text; unprintable characters as in a Python literal."""
    text = path.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _checked_classes(tree: Tree) -> tuple[str, ...]:
    names = tuple(tree.classes())
    if not names:
        raise UserError(
            f"source '{tree.root}' has no class folders: put the images in one folder per class"
        )
    for name in names:
        if not name.isprintable():  # which includes lone surrogates of names that are not UTF-8
            raise UserError(
                f"class folder {f'{tree.root}/{name}'!r}: the name has characters that cannot "
                "be shown, and becomes a label: rename it"
            )
    return names


def is_image_name(name: bytes) -> bool:
    """Whether a file of this name, unless hidden, counts as an image."""
    return name.lower().endswith(_SUFFIXES)


class LocalTree:
    """Class folders below the local folder `root`."""

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(root)
        self.files: Files = LocalFiles()
        self._base = len(os.fsencode(os.path.join(self.root, "")))

    def classes(self) -> list[str]:
        """Return the sorted names of the class folders."""
        with os.scandir(self.root) as entries:
            return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))

    def listings(self, names: Sequence[str]) -> Iterator[Listing]:
        """Yield the listing of each of the class folders `names`, in order.

        Raises:
          UserError: a symbolic link points to a folder that contains it.
        """
        for name in names:
            listing = Listing()
            self._add_files(os.fsencode(os.path.join(self.root, name)), listing, ())
            yield listing

    def strays(self) -> list[bytes]:
        """Return the images directly in the root, which have no class."""
        with os.scandir(os.fsencode(self.root)) as entries:
            return sorted(e.name for e in entries if is_image_name(e.name) and e.name[0] != _DOT)

    def _add_files(
        self, folder: bytes, listing: Listing, ancestors: tuple[tuple[int, int], ...]
    ) -> None:
        """Add the files below `folder`; `ancestors` are (device, inode) of the folders above."""
        status = os.stat(folder)
        identity = (status.st_dev, status.st_ino)
        if identity in ancestors:
            raise UserError(
                f"source folder '{shown_path(folder)}' is a link to a folder that contains it: "
                "its images would repeat without end; remove the link"
            )
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name[0] == _DOT:
                    continue
                path = entry.path[self._base :]
                if is_image_name(entry.name) and entry.is_file():
                    status = entry.stat()
                    listing.images.append((path, status.st_size, status.st_mtime_ns))
                elif entry.is_dir():
                    self._add_files(entry.path, listing, (*ancestors, identity))
                else:
                    listing.others.append(path)


class _Scan:
    """A scan in progress: its sums, and the two files that it writes, of rows and of paths.

    The fingerprint is a hash of both files: paths, classes, sizes and versions, in order.
    """

    def __init__(self, scratch: Path) -> None:
        self._rows = scratch / "folder.rows"
        self._paths = scratch / "folder.paths"
        self._examples = self._bytes = self._max_bytes = self._ignored = 0
        self._first_ignored = b""
        self._hash = hashlib.blake2b(digest_size=8)

    def __enter__(self) -> "_Scan":
        self._rows_file = open(self._rows, "wb")
        self._paths_file = open(self._paths, "wb")
        return self

    def __exit__(self, *error: object) -> None:
        self._rows_file.close()
        self._paths_file.close()

    def add_ignored(self, paths: Sequence[bytes]) -> None:
        """Count files that are not used."""
        self._ignored += len(paths)
        if paths and not self._first_ignored:
            self._first_ignored = paths[0]

    def add_class(self, images: Sequence[tuple[bytes, int, int]], label: int) -> None:
        """Add the images of one class, as in `Listing`."""
        offset = self._paths_file.tell()
        rows, paths = [], []
        for path, size, version in images:
            paths.append(path)
            rows.append(_ROW.pack(offset, len(path), label, size, version))
            offset += len(path)
        sizes = [_record_bytes(size, label) for _, size, _ in images]
        self._examples += len(sizes)
        self._bytes += sum(sizes)
        self._max_bytes = max(self._max_bytes, max(sizes))
        for file, parts in ((self._rows_file, rows), (self._paths_file, paths)):
            joined = b"".join(parts)
            self._hash.update(joined)
            file.write(joined)

    def files(self) -> tuple[RowFile, BlobFile]:
        """Return the rows and the paths."""
        return RowFile(self._rows, _ROW.format), BlobFile(self._paths)

    def notes(self, prefix: bytes) -> tuple[str, ...]:
        """Return a remark on ignored files; `prefix` completes their paths."""
        if not self._ignored:
            return ()
        more = f" and {self._ignored - 1:,} more" if self._ignored > 1 else ""
        return (
            f"ignored, not a {', '.join(SUFFIXES)} file in a class folder: "
            f"{shown_path(prefix + self._first_ignored)}{more}",
        )

    def stats(self, label_names: tuple[str, ...]) -> SourceStats:
        """Return the sums."""
        return SourceStats(
            num_examples=self._examples,
            total_bytes=self._bytes,
            max_record_bytes=self._max_bytes,
            label_names=label_names,
            fingerprint=f"folder-{self._hash.hexdigest()}",
        )
