"""Trees of folders of images, listed without opening an image."""

import os
from collections.abc import Iterator, Sequence
from typing import Final, Protocol

from tenfold.data.sources.image_folders.list_folders import (
    Listing,
    ListingOptions,
    list_folder,
    list_folders,
)
from tenfold.data.sources.scanned_files import Files, LocalFiles

SUFFIXES: Final = (".jpg", ".jpeg", ".png")
# Images that only a transform can bring into the shards.
OTHER_SUFFIXES: Final = (
    ".webp", ".gif", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".jfif",
    ".ppm", ".pgm", ".pbm", ".tga", ".ico",
)  # fmt: skip
_SUFFIXES: Final = tuple(suffix.encode() for suffix in SUFFIXES)
_OTHER_SUFFIXES: Final = tuple(suffix.encode() for suffix in OTHER_SUFFIXES)
# Names of folders of images, and of folders of something else for each of the images.
_IMAGES: Final = frozenset({"image", "images", "img", "imgs", "jpegimages", "photos", "input"})
_PARTNERS: Final = frozenset(
    {"mask", "masks", "label", "labels", "annotation", "annotations", "gt", "groundtruth"}
    | {"ground_truth", "segmentation", "segmentations", "segmentationclass", "target", "targets"}
    | {"depth", "depths", "output"}
)


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

    def __init__(self, root: str, *, any_image: bool = False, sizes_only: bool = False) -> None:
        self.root = os.path.abspath(root)
        suffixes = (*SUFFIXES, *OTHER_SUFFIXES) if any_image else SUFFIXES
        self._options = ListingOptions(suffixes, sizes_only)
        self.files: Files = LocalFiles()

    def classes(self) -> list[str]:
        """Return the sorted names of the class folders."""
        with os.scandir(self.root) as entries:
            return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))

    def listings(self, names: Sequence[str]) -> Iterator[Listing]:
        """Yield the listing of each of the class folders `names`, in order.

        Raises:
          UserError: a symbolic link points to a folder that contains it.
        """
        return list_folders(self.root, names, self._options)

    def strays(self) -> Listing:
        """Return the images directly in the root, which have no class."""
        return list_folder(self.root, "", ListingOptions(self._options.suffixes, deep=False))
