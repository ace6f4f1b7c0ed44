"""The files that make up a table: one file, or the parts in a folder or of a pattern. Pure.

Formats are told by suffix. Text formats may be compressed. Folders named ``key=value`` (hive
partitions) add a column to the parts below them.
"""

import os
import posixpath
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import unquote

from tenfold.data.errors import UserError
from tenfold.data.planning.splits.split_names import usual_split

_SUFFIXES: Final = {
    ".csv": "CSV",
    ".tsv": "TSV",
    ".jsonl": "JSONL",
    ".ndjson": "JSONL",
    ".parquet": "Parquet",
    ".feather": "Arrow",
    ".arrow": "Arrow",
}
_COMPRESSED: Final = (".gz", ".zst")
_TEXT_FORMATS: Final = ("CSV", "TSV", "JSONL")
TABLES: Final = (*_SUFFIXES,)

# The value that Hive and Spark give the partition of rows without a value.
_NO_VALUE: Final = "__HIVE_DEFAULT_PARTITION__"
_WORD = re.compile(r"[A-Za-z]+")


@dataclass(frozen=True)
class TableFile:
    """One part of a table.

    Attributes:
      path: Its local path.
      format: ``CSV``, ``TSV``, ``JSONL``, ``Parquet`` or ``Arrow``.
      partitions: Name and value of each hive partition that holds it; None for no value.
      split: The split that its name or folder tells, ``train``, ``validation`` or ``test``,
        if those of all parts tell one and they differ; else "".
    """

    path: str
    format: str
    partitions: tuple[tuple[str, str | None], ...] = ()
    split: str = ""

    @property
    def is_text(self) -> bool:
        """Whether cells are text, whose type is to be inferred."""
        return self.format in ("CSV", "TSV")


def table_format(name: str) -> str:
    """Return the format of a file by its name; "" if it is no table."""
    stem, suffix = os.path.splitext(name.lower())
    if suffix not in _COMPRESSED:
        return _SUFFIXES.get(suffix, "")
    found = _SUFFIXES.get(os.path.splitext(stem)[1], "")
    return found if found in _TEXT_FORMATS else ""


def table_parts(names: Iterable[str]) -> list[str]:
    """Return those of the relative paths `names` that are parts of a table, sorted.

    Hidden files and folders, and those that begin with ``_`` as Spark's ``_temporary``, are none.
    """
    return sorted(
        name for name in names if table_format(name) and not any(map(is_hidden, name.split("/")))
    )


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is not part of the data, as ``_SUCCESS``."""
    return name[:1] in (".", "_")


def is_partition(folder: str) -> bool:
    """Whether a folder's name is that of a hive partition, ``key=value``."""
    key, equals, _ = folder.partition("=")
    return bool(key and equals)


def table_files(source: str, root: str, names: Sequence[str]) -> tuple[TableFile, ...]:
    """Return the parts of a table, in order; those of each split follow one another.

    Args:
      source: The source as the user wrote it, for errors.
      root: The local folder that `names` are relative to.
      names: Relative paths of the parts, with ``/`` between folders.

    Raises:
      UserError: the parts have several formats.
    """
    files = [
        TableFile(os.path.join(root, name), table_format(name), _partitions(name), split_of(name))
        for name in names
    ]
    formats = sorted({file.format for file in files})
    if len(formats) > 1:
        raise UserError(
            f"source '{source}' holds {' and '.join(formats)} files: "
            "give a pattern of one kind, as 'FOLDER/*.csv'"
        )
    splits = {file.split for file in files}
    if "" in splits or len(splits) < 2:
        return tuple(replace(file, split="") for file in files)
    order = ("train", "validation", "test")
    return tuple(sorted(files, key=lambda file: order.index(file.split)))


def _partitions(name: str) -> tuple[tuple[str, str | None], ...]:
    folders = posixpath.dirname(name).split("/")
    pairs = (folder.partition("=")[::2] for folder in folders if is_partition(folder))
    return tuple((key, None if value == _NO_VALUE else unquote(value)) for key, value in pairs)


def split_of(name: str) -> str:
    """Return the split that a folder's name or the first word of the file's name tells."""
    *folders, file = name.split("/")
    words = [folder.removeprefix("split=") for folder in folders]
    if match := _WORD.match(file):
        words.append(match[0])
    return next((split for word in words if (split := usual_split(word))), "")
