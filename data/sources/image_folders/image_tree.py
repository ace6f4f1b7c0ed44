"""Trees of folders of images, listed without opening an image."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import Final, Protocol

from tenfold.data.errors import UserError
from tenfold.data.sources.scanned_files import Files, LocalFiles

SUFFIXES: Final = (".jpg", ".jpeg", ".png")
# Images that only a transform can bring into the shards.
OTHER_SUFFIXES: Final = (
    ".webp", ".gif", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".jfif",
    ".ppm", ".pgm", ".pbm", ".tga", ".ico",
)  # fmt: skip
_SUFFIXES: Final = tuple(suffix.encode() for suffix in SUFFIXES)
_OTHER_SUFFIXES: Final = tuple(suffix.encode() for suffix in OTHER_SUFFIXES)
_DOT: Final = ord(".")
# Names of folders of images, and of folders of something else for each of the images.
_IMAGES: Final = frozenset({"image", "images", "img", "imgs", "jpegimages", "photos", "input"})
_PARTNERS: Final = frozenset(
    {"mask", "masks", "label", "labels", "annotation", "annotations", "gt", "groundtruth"}
    | {"ground_truth", "segmentation", "segmentations", "segmentationclass", "target", "targets"}
    | {"depth", "depths", "output"}
)


def shown_path(path: bytes) -> str:
    """Return a path as one line of text; unprintable characters as in a Python literal."""
    text = path.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def is_image_name(name: bytes, *, any_image: bool = False) -> bool:
    """Whether a file of this name, unless hidden, counts as an image; see `SourceOptions`."""
    return name.lower().endswith((*_SUFFIXES, *_OTHER_SUFFIXES) if any_image else _SUFFIXES)


def is_other_image(name: bytes) -> bool:
    """Whether a file of this name is an image that only a transform can bring into the shards."""
    return name.lower().endswith(_OTHER_SUFFIXES)


def paired_names(folders: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the folders that hold images by their names, and those of what belongs to each."""
    images = [name for name in folders if name.lower() in _IMAGES]
    partners = [name for name in folders if name.lower() in _PARTNERS]
    return images, partners


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

    def strays(self) -> Listing:
        """Return the images directly in the root, which have no class."""


class LocalTree:
    """Class folders below the local folder `root`."""

    def __init__(self, root: str, *, any_image: bool = False) -> None:
        self.root = os.path.abspath(root)
        self._any_image = any_image
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

    def strays(self) -> Listing:
        """Return the images directly in the root, which have no class."""
        listing = Listing()
        with os.scandir(os.fsencode(self.root)) as entries:
            for entry in entries:
                if entry.name[0] != _DOT and self._is_image(entry):
                    status = entry.stat()
                    listing.images.append((entry.name, status.st_size, status.st_mtime_ns))
        return listing

    def _is_image(self, entry: "os.DirEntry[bytes]") -> bool:
        return is_image_name(entry.name, any_image=self._any_image) and entry.is_file()

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
                if self._is_image(entry):
                    status = entry.stat()
                    listing.images.append((path, status.st_size, status.st_mtime_ns))
                elif entry.is_dir():
                    self._add_files(entry.path, listing, (*ancestors, identity))
                else:
                    listing.others.append(path)
