"""Trees of class folders, ``cats/1.jpg``, ``cats/old/2.png``, ``dogs/3.jpg``, …, and of images.

The classes are the sorted names of the top folders, or those that the user gives. Images without
class folders have no label. The bytes of an image are stored unchanged.
"""

import hashlib
import os
import struct
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import accumulate, repeat
from pathlib import Path
from typing import Final

from tenfold.data.errors import UserError
from tenfold.data.format.example import Features, feature_entry, field, to_list, varint
from tenfold.data.format.image_header import image_shape, is_image
from tenfold.data.format.manifest import IMAGE, LABEL, Feature
from tenfold.data.format.row_file import BlobFile, RowFile
from tenfold.data.format.schema import Schema
from tenfold.data.format.tfrecord import FRAME_BYTES
from tenfold.data.planning.layout import SourceStats
from tenfold.data.planning.splits.own_splits import FeatureValues, code_values
from tenfold.data.sources.base import Encoded, SourceOptions, UnusableRecord
from tenfold.data.sources.image_folders.image_tree import (
    SUFFIXES,
    Tree,
    is_other_image,
    paired_names,
)
from tenfold.data.sources.image_folders.list_folders import Listing, shown_path
from tenfold.data.sources.scanned_files import Files

# Offset and length of the path in the file of paths, class, size in bytes, version (see `Files`).
_ROW: Final = struct.Struct("<QHIQq")
_UNLABELLED: Final = 2**16 - 1
_LABEL_FEATURE: Final = Feature(LABEL, "int64", ())


class FolderSource:
    """The images in the class folders of `root`, ordered by class, then by path.

    Those of a tree without classes have no label, and are ordered by path.
    """

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
        data, label = self._read(index)
        schema = _schema_of(_shape_of(data), label is not None)
        return Encoded(_pack(data, label), schema, label)

    def features(self, index: int) -> Features:
        """Return ``image`` (encoded bytes, of any format) and ``label``; see `Source`."""
        data, label = self._read(index)
        if is_image(data):
            _shape_of(data)
        return {IMAGE: data} if label is None else {IMAGE: data, LABEL: label}

    def feature_values(self, name: str) -> FeatureValues | None:
        """Return the class of every image, without opening one; see `Source`."""
        if name != LABEL or not self.stats.num_classes:
            return None
        return code_values(row[2] for row in self._all_rows())

    def _all_rows(self) -> Iterator[tuple[int, ...]]:
        return (self._rows[index] for index in range(self.stats.num_examples))

    def name(self, index: int) -> str:
        """Return the path of the image."""
        offset, length, *_ = self._rows[index]
        return shown_path(self._prefix + self._paths.read(offset, length))

    def _read(self, index: int) -> tuple[bytes, int | None]:
        """Return the encoded image and its class."""
        offset, length, label, size, version = self._rows[index]
        data = self._files.read(self._prefix + self._paths.read(offset, length), size, version)
        return data, None if label == _UNLABELLED else label


def _shape_of(data: bytes) -> tuple[int, int, int]:
    """Return (height, width, channels) of an encoded image."""
    try:
        return image_shape(data)
    except ValueError as error:
        raise UnusableRecord(str(error)) from None


@lru_cache(maxsize=1 << 16)
def _label_entry(label: int | None) -> bytes:
    if label is None:
        return b""
    return feature_entry(LABEL, *to_list(LABEL, label)[:2])


@lru_cache(maxsize=1 << 12)
def _schema_of(shape: tuple[int, int, int], labelled: bool) -> Schema:
    image = Feature(IMAGE, "image", shape)
    return (image, _LABEL_FEATURE) if labelled else (image,)


_NAME_FIELD: Final = field(1, IMAGE.encode())


def _pack(data: bytes, label: int | None) -> bytes:
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


def _record_bytes(size: int, label: int | None) -> int:
    """Return the size of the framed record that `_pack` makes of an image of `size` bytes."""
    value = _field_bytes(_field_bytes(_field_bytes(size)))
    features = _field_bytes(len(_NAME_FIELD) + value) + len(_label_entry(label))
    return _field_bytes(features) + FRAME_BYTES


def _overheads(sizes: Sequence[int], label: int | None) -> int:
    """Return the sum of what `_record_bytes` adds to each of `sizes`.

    It grows with the size in a few steps, where one more byte is needed for a length.
    """
    ordered = sorted(sizes)

    def overhead(size: int) -> int:
        return _record_bytes(size, label) - size

    def add(begin: int, end: int) -> int:
        least, most = overhead(ordered[begin]), overhead(ordered[end - 1])
        middle = (begin + end) // 2
        return (end - begin) * least if least == most else add(begin, middle) + add(middle, end)

    return add(0, len(ordered))


def _field_bytes(size: int) -> int:
    """Return the size of a message of `size` bytes with the key and length of a field."""
    return size + 1 + ((size or 1).bit_length() + 6) // 7


_DEFAULT: Final = SourceOptions()


def scan_tree(tree: Tree, scratch: Path, options: SourceOptions = _DEFAULT) -> FolderSource:
    """Scan a tree of class folders, or of images without classes, without opening an image.

    Args:
      tree: The tree.
      scratch: Local folder for the result of the scan.
      options: The classes, if the user gives them; () for a tree without.

    Raises:
      UserError: there are no images, a class folder has none, its name cannot be a label or is
        not among the classes, or folders are no classes but images and their masks.
    """
    folders = tree.classes()
    strays = tree.strays()
    scan = _Scan(scratch, options.any_image)
    names: tuple[str, ...] = ()
    with scan:
        if options.classes == () or (not folders and len(strays)):
            _add_unlabelled(scan, tree, folders, strays)
        else:
            names = _classes(tree.root, folders, options.classes)
            scan.identify(options.classes)
            _add_classes(scan, tree, folders, names)
            scan.add_ignored([path for path, _, _ in strays.images])
    if not names and options.classes is None:
        scan.remark("no class folders: the images have no label; --labels=FILE.csv gives them")
    prefix = os.fsencode(tree.root) + b"/"
    return FolderSource(
        tree.root, tree.files, scan.stats(names), *scan.files(), scan.notes(prefix)
    )


def _add_classes(scan: "_Scan", tree: Tree, folders: Sequence[str], names: Sequence[str]) -> None:
    for folder, listing in zip(folders, tree.listings(folders), strict=True):
        if not len(listing):
            others = [path for path in listing.others if is_other_image(path)]
            remedy = "add some, or remove the folder"
            if others:
                remedy = (
                    f"'{shown_path(others[0])}' is an image of another format, which "
                    "--transform=encode:jpeg takes"
                )
            raise UserError(
                f"class folder '{tree.root}/{folder}' has no images ({', '.join(SUFFIXES)}): "
                f"{remedy}"
            )
        scan.add_class(listing, names.index(folder))
        scan.add_ignored(sorted(listing.others))


def _add_unlabelled(scan: "_Scan", tree: Tree, folders: Sequence[str], strays: Listing) -> None:
    parts = [strays]
    for listing in tree.listings(folders):
        parts.append(listing)
        scan.add_ignored(sorted(listing.others))
    images = Listing.joined(parts)
    if not len(images):
        raise UserError(f"source '{tree.root}' has no images ({', '.join(SUFFIXES)})")
    scan.add_class(images, None)


def _classes(root: str, folders: Sequence[str], given: Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of the classes in order, those of the folders or those that are given."""
    if not folders:
        raise UserError(
            f"source '{root}' has no class folders and no images ({', '.join(SUFFIXES)}): put "
            "the images in one folder per class"
        )
    for name in folders:
        if not name.isprintable():  # which includes lone surrogates of names that are not UTF-8
            raise UserError(
                f"class folder {f'{root}/{name}'!r}: the name has characters that cannot "
                "be shown, and becomes a label: rename it"
            )
    if given is None:
        _check_no_pairs(root, folders)
        given = folders
    unknown = next((name for name in folders if name not in given), None)
    if unknown is not None:
        from tenfold.data.sources.class_labels import unknown_class

        raise UserError(f"class folder '{root}/{unknown}': {unknown_class(unknown, given)}")
    if len(given) >= _UNLABELLED:
        raise UserError(f"source '{root}': {len(given):,} classes: at most {_UNLABELLED - 1:,}")
    return tuple(given)


def _check_no_pairs(root: str, folders: Sequence[str]) -> None:
    """Check that the folders are classes, not ``images`` beside ``labels`` that are no images.

    Raises:
      UserError: their names say that they are not.
    """
    images, partners = paired_names(folders)
    if images and partners:
        raise UserError(
            f"source '{root}': the folders '{images[0]}' and '{partners[0]}' look like images "
            f"and what belongs to each of them, not like classes: give --source={root}/"
            f"{images[0]} for the images alone, or a function of your own, module:function, "
            f"that yields pairs; if they are classes: --classes={','.join(folders)}"
        )


class _Counted:
    """A number of files, and the first of them."""

    def __init__(self) -> None:
        self.count = 0
        self._first = b""

    def add(self, path: bytes) -> None:
        self.count += 1
        self._first = self._first or path

    def shown(self, prefix: bytes) -> str:
        """Return the first file, and the number of the others."""
        more = f" and {self.count - 1:,} more" if self.count > 1 else ""
        return f"{shown_path(prefix + self._first)}{more}"


class _Scan:
    """A scan in progress: its sums, and the two files that it writes, of rows and of paths.

    The fingerprint is a hash of both files: paths, classes, sizes and versions, in order.
    """

    def __init__(self, scratch: Path, any_image: bool) -> None:
        self._any_image = any_image
        self._remarks: list[str] = []
        self._rows = scratch / "folder.rows"
        self._paths = scratch / "folder.paths"
        self._examples = self._bytes = self._max_bytes = 0
        self._ignored = _Counted()
        self._other_images = _Counted()
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
        for path in paths:
            other_image = not self._any_image and is_other_image(path)
            (self._other_images if other_image else self._ignored).add(path)

    def identify(self, classes: Sequence[str] | None) -> None:
        """Add the classes that the user gives, None for none, to the fingerprint."""
        if classes is not None:
            self._hash.update(repr(classes).encode())

    def remark(self, text: str) -> None:
        """Add a remark for the user."""
        self._remarks.append(text)

    def add_class(self, images: Listing, label: int | None) -> None:
        """Add the images of one class, at least one; a `label` of None is no class."""
        number = _UNLABELLED if label is None else label
        offsets = accumulate(images.lengths, initial=self._paths_file.tell())
        columns = (images.lengths, repeat(number), images.sizes, images.versions)
        rows = b"".join(map(_ROW.pack, offsets, *columns))
        self._examples += len(images)
        self._bytes += sum(images.sizes) + _overheads(images.sizes, label)
        self._max_bytes = max(self._max_bytes, _record_bytes(max(images.sizes), label))
        for file, content in ((self._rows_file, rows), (self._paths_file, images.paths)):
            self._hash.update(content)
            file.write(content)

    def files(self) -> tuple[RowFile, BlobFile]:
        """Return the rows and the paths."""
        return RowFile(self._rows, _ROW.format), BlobFile(self._paths)

    def notes(self, prefix: bytes) -> tuple[str, ...]:
        """Return the remarks, and those on files that are not used; `prefix` completes paths."""
        notes = list(self._remarks)
        if self._other_images.count:
            notes.append(
                f"left out, images of other formats: {self._other_images.shown(prefix)}; "
                "--transform=encode:jpeg writes them too"
            )
        if self._ignored.count:
            notes.append(
                f"ignored, not a {', '.join(SUFFIXES)} file in a class folder: "
                f"{self._ignored.shown(prefix)}"
            )
        return tuple(notes)

    def stats(self, label_names: tuple[str, ...]) -> SourceStats:
        """Return the sums."""
        return SourceStats(
            num_examples=self._examples,
            total_bytes=self._bytes,
            max_record_bytes=self._max_bytes,
            label_names=label_names,
            num_classes=len(label_names),
            fingerprint=f"folder-{self._hash.hexdigest()}",
        )
