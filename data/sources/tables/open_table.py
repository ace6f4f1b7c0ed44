"""Find and open the tables on a local disk: a file, a folder of parts, or a pattern of them."""

import glob
import os
from pathlib import Path
from typing import TYPE_CHECKING

from tenfold.data.errors import UserError
from tenfold.data.sources.base import SourceOptions
from tenfold.data.sources.image_folders.image_tree import is_image_name
from tenfold.data.sources.tables.table_files import (
    TableFile,
    is_hidden,
    table_files,
    table_format,
    table_parts,
)

if TYPE_CHECKING:
    from tenfold.data.sources.tables.columns.table_images import Images
    from tenfold.data.sources.tables.table_source import TableSource

_WILDCARDS = frozenset("*?[")


def open_table(path: str, scratch: Path, options: SourceOptions) -> "TableSource | None":
    """Scan the table at a local path or glob pattern; return None if there is none.

    Raises:
      UserError: as `scan_table`.
    """
    if os.path.isdir(path):
        root, names = path, folder_parts(path)
    elif os.path.isfile(path):
        root, name = os.path.split(path)
        names = [name] if table_format(name) else []
    else:
        root, names = _matching(path)
    if not names:
        return None
    # It imports NumPy, which sources that are no tables do without.
    from tenfold.data.sources.tables.columns.table_images import LocalImages

    files = table_files(path, root, names)
    return scan_files(path, files, scratch, options, LocalImages(os.path.abspath(root)))


def scan_files(
    source: str,
    files: tuple[TableFile, ...],
    scratch: Path,
    options: SourceOptions,
    images: "Images",
) -> "TableSource":
    """Scan the files of a table; see `scan_table`, whose import takes Arrow.

    Raises:
      UserError: as `scan_table`, or pyarrow cannot be imported.
    """
    try:
        from tenfold.data.sources.tables.scan_table import scan_table
    except ImportError as error:
        # pyarrow raises an error without a name where NumPy is too old for it.
        if not (error.name or str(error)).startswith("pyarrow"):
            raise
        raise UserError(
            f"source '{source}' needs pyarrow, which cannot be imported ({error}): "
            "pip install pyarrow, or 'pyarrow<26' with NumPy 1"
        ) from error
    return scan_table(source, files, scratch, options, images)


def folder_parts(folder: str) -> list[str]:
    """Return the relative paths of a table's parts in a folder; [] if there are images in it."""
    found: list[str] = []
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not is_hidden(name)]
        if any(is_image_name(os.fsencode(name)) for name in names):
            return []
        base = os.path.relpath(root, folder)
        found += [name if base == "." else f"{base}/{name}" for name in names]
    return table_parts(found)


def _matching(pattern: str) -> tuple[str, list[str]]:
    """Return the folder before a pattern's first wildcard, and the tables that match, below it."""
    if not _WILDCARDS & set(pattern):
        return "", []
    head = pattern[: min(pattern.index(mark) for mark in _WILDCARDS if mark in pattern)]
    root = os.path.dirname(head)
    found = [path for path in glob.glob(pattern, recursive=True) if os.path.isfile(path)]
    return root, table_parts(os.path.relpath(path, root or ".") for path in found)
