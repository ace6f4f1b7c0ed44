"""A folder of images with labels, or any other features, in a table beside it: ``--labels``."""

import os
import posixpath
from pathlib import Path
from typing import TYPE_CHECKING

from tenfold.data.errors import UserError
from tenfold.data.sources.base import SourceOptions
from tenfold.data.sources.image_folders.image_tree import Tree
from tenfold.data.sources.image_folders.list_folders import shown_path
from tenfold.data.sources.tables.open_table import scan_files
from tenfold.data.sources.tables.table_files import TABLES, table_files, table_format
from tenfold.data.storage.folder import is_url
from tenfold.data.storage.open_folder import read_file

if TYPE_CHECKING:
    from tenfold.data.sources.tables.table_source import TableSource

# Full path, size in bytes and version (see `Files`) of an image.
_Found = tuple[bytes, int, int]


class FolderImages:
    """The images of a tree, which a table names by path below it, file name, or name alone.

    ``a/7.jpg`` is found as ``a/7.jpg``, ``7.jpg``, ``a/7`` and ``7``, the last three if no other
    image has that name.
    """

    def __init__(self, tree: Tree) -> None:
        self.files = tree.files
        self._root = tree.root
        self._by_path: dict[str, _Found] = {}
        self._by_name: dict[str, _Found | None] = {}  # None for a name of several images
        self._used: set[bytes] = set()
        images = list(tree.strays().images)
        for listing in tree.listings(tree.classes()):
            images += listing.images
        for path, size, version in sorted(images):
            self._add(path, size, version)

    def _add(self, path: bytes, size: int, version: int) -> None:
        below = os.fsdecode(path)
        found = (os.fsencode(f"{self._root}/") + path, size, version)
        self._by_path[below] = found
        name = posixpath.basename(below)
        for short in {name, posixpath.splitext(below)[0], posixpath.splitext(name)[0]} - {below}:
            self._by_name[short] = None if short in self._by_name else found

    def stat(self, name: str) -> _Found:
        """Return full path, size and version of an image; see `Images`.

        Raises:
          FileNotFoundError: there is none, or several have this name.
        """
        key = posixpath.normpath(name.strip())
        found = self._by_path.get(key) or self._by_name.get(key)
        if found is None:
            raise FileNotFoundError(name)
        self._used.add(found[0])
        return found

    def path(self, name: str) -> str:
        """Return the full path of the image that a row calls `name`."""
        return f"{self._root}/{posixpath.normpath(name.strip())}"

    @property
    def unused(self) -> list[bytes]:
        """The full paths of the images that no row names."""
        return [found[0] for found in self._by_path.values() if found[0] not in self._used]

    def __len__(self) -> int:
        return len(self._by_path)


def scan_labelled_folder(tree: Tree, scratch: Path, options: SourceOptions) -> "TableSource":
    """Scan the images of `tree` that the table ``options.labels`` names; its columns are features.

    Raises:
      UserError: there is no such table, it names no images, or images that do not exist.
    """
    images = FolderImages(tree)
    if not images:
        raise UserError(f"source '{tree.root}' has no images: --labels is for a folder of images")
    table = _local_table(options.labels, scratch)
    files = table_files(options.labels, str(table.parent), [table.name])
    source = scan_files(options.labels, files, scratch, options, images)
    if len(images.unused) == len(images):
        raise UserError(
            f"--labels={options.labels}: no column names the images of '{tree.root}': name it "
            "with --image_feature"
        )
    if images.unused:
        more = f" and {len(images.unused) - 1:,} more" if len(images.unused) > 1 else ""
        first = shown_path(images.unused[0])
        source.notes = (*source.notes, f"left out, not in {options.labels}: {first}{more}")
    return source


def _local_table(path: str, scratch: Path) -> Path:
    """Return the local path of a table, of its copy if it is remote."""
    if not table_format(path):
        raise UserError(f"--labels={path}: a table ends in {', '.join(TABLES)}")
    if not is_url(path.removeprefix("file://")):
        local = Path(path.removeprefix("file://")).expanduser()
        if not local.is_file():
            raise UserError(f"--labels={path}: there is no such file")
        return local
    data = read_file(path)
    if data is None:
        raise UserError(f"--labels={path}: there is no such file")
    local = scratch / posixpath.basename(path)
    local.write_bytes(data)
    return local
