"""The members of a tar archive, grouped by key, without reading their data."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, Final

from tenfold.data.errors import UserError

if TYPE_CHECKING:
    import tarfile

TARS: Final = (".tar", ".tar.gz", ".tgz")
_BLOCK: Final = 512  # tarfile.BLOCKSIZE
_CHUNK_BYTES: Final = 1 << 20
# KEY.FIELD: the key ends at the first dot of the file's name, which is not its first character.
_NAME = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)", re.DOTALL)

_BRACES = re.compile(r"\{(?:([0-9]{1,9})\.\.([0-9]{1,9})|([^{},]*(?:,[^{},]*)+))\}")


@dataclass(frozen=True)
class Member:
    """The place of a member's data in the archive, in bytes."""

    offset: int
    size: int


@dataclass
class TarRecords:
    """The records of one archive.

    Attributes:
      records: Of each key, in the order of its first member, the members by field.
      num_ignored: The number of members that belong to no record; folders do not count.
      ignored: The name of the first of these.
    """

    records: dict[str, dict[str, Member]] = field(default_factory=dict)
    num_ignored: int = 0
    ignored: str = ""


def read_tar(path: str, shown: str) -> TarRecords:
    """Return the records of the archive at `path`, called `shown` in messages.

    Fields are in lower case. Members with one key may lie apart.

    Raises:
      UserError: the archive is cut or damaged, or a key has a field twice.
    """
    import tarfile

    found = TarRecords()
    try:
        with open(path, "rb") as file:
            for info in _members(file):
                _add(found, info, shown)
    except tarfile.TarError as error:
        raise UserError(
            f"source file '{shown}': it is not a tar file, or it is cut or damaged ({error}): "
            "fetch or write it again"
        ) from None
    return found


def _add(found: TarRecords, info: "tarfile.TarInfo", shown: str) -> None:
    if info.isdir():
        return
    # Links and devices have no data of their own, and nothing here follows one.
    match = _NAME.fullmatch(info.name) if info.isreg() and not info.issparse() else None
    if match is None:
        found.num_ignored += 1
        found.ignored = found.ignored or printable(info.name)
        return
    key, name = match[1], match[2].lower()
    members = found.records.setdefault(key, {})
    if name in members:
        raise UserError(
            f"source file '{shown}': it holds '{printable(info.name)}' twice: keys must differ "
            "within one tar"
        )
    members[name] = Member(info.offset_data, info.size)


def _members(file: BinaryIO) -> "Iterator[tarfile.TarInfo]":
    """Yield the members of an open archive.

    `tarfile` takes a damaged header as the end of the archive; here the end must be the two
    blocks of zeros that every writer adds, with nothing but zeros after them.

    Raises:
      TarError: the archive is cut or damaged, or several are joined.
    """
    import tarfile

    size = os.fstat(file.fileno()).st_size
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for info in archive:
            if info.offset_data + info.size > size:
                raise tarfile.TarError(f"'{printable(info.name)}' ends beyond its end")
            yield info
            archive.members.clear()  # type: ignore[attr-defined]  # it keeps them all
        end = archive.offset
    file.seek(end)
    if size - end < _BLOCK:
        raise tarfile.TarError(f"it ends at byte {size:,} without the mark of its end")
    while data := file.read(_CHUNK_BYTES):
        if data.strip(b"\0"):
            raise tarfile.TarError(
                f"at byte {end:,} there is no sound header; of joined archives give each its file"
            )


def is_tar_name(name: str) -> bool:
    """Whether a file of this name is read as a WebDataset tar."""
    return name.lower().endswith(TARS)


def expand_braces(pattern: str) -> list[str]:
    """Return the names of ``train-{000..099}.tar`` or ``{train,extra}.tar``, as shells do."""
    match = _BRACES.search(pattern)
    if match is None:
        return [pattern]
    if match[1] is not None:
        first, last = int(match[1]), int(match[2])
        step = 1 if first <= last else -1
        width = len(match[1]) if match[1][0] == "0" or match[2][0] == "0" else 0
        parts = [f"{number:0{width}d}" for number in range(first, last + step, step)]
    else:
        parts = match[3].split(",")
    head, tail = pattern[: match.start()], pattern[match.end() :]
    return [head + part + rest for part in parts for rest in expand_braces(tail)]


def printable(text: str) -> str:
    """Return a name as one line; characters that cannot be shown as in a Python literal."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
