"""The files below class folders on a local disk, with their sizes: by several processes if many.

A scan of many files takes as long as the system calls for their sizes, and with cold caches as
long as the disk takes to find them one by one: processes share the first and overlap the second.
"""

import os
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from functools import partial
from typing import Any, Final

from tenfold.data.errors import JobError, UserError, os_error_text
from tenfold.data.runtime.cpus import usable_cpus
from tenfold.data.runtime.process_pool import can_fork, run_pool

# Files from which on further folders are listed by other processes.
_MANY_FILES: Final = 10_000
# Processes per core: some wait for the disk.
_PER_CPU: Final = 2
_MAX_PROCESSES: Final = 8


def shown_path(path: bytes) -> str:
    """Return a path as one line of text; unprintable characters as in a Python literal."""
    text = path.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


@dataclass
class Listing:
    """The files in one class folder, at any depth.

    Attributes:
      images: (path below the root of the tree, size in bytes, version as in `Files`) of each.
      others: Paths of the files that are not images.
    """

    images: list[tuple[bytes, int, int]] = dataclass_field(default_factory=list)
    others: list[bytes] = dataclass_field(default_factory=list)


def list_folders(root: str, names: Sequence[str], suffixes: Sequence[str]) -> Iterator[Listing]:
    """Yield the listing of each of the folders `names` in `root`, in order.

    Args:
      root: The root of the tree.
      names: Names of folders in it.
      suffixes: The suffixes of images, in lower case.

    Raises:
      UserError: a symbolic link points to a folder that contains it.
    """
    num_files = 0
    for index, name in enumerate(names):
        listing = list_folder(root, name, suffixes)
        num_files += len(listing.images)
        yield listing
        rest = names[index + 1 :]
        if num_files >= _MANY_FILES and len(rest) > 1 and can_fork():
            yield from _list_by_processes(root, rest, suffixes)
            return


def list_folder(root: str, name: str, suffixes: Sequence[str], *, deep: bool = True) -> Listing:
    """Return the files below the folder `name` of `root`; "" is `root` itself.

    Args:
      root: The root of the tree.
      name: The name of the folder, which the paths begin with.
      suffixes: The suffixes of images, in lower case.
      deep: Whether the files of folders in the folder count too.

    Raises:
      UserError: a symbolic link points to a folder that contains it.
    """
    listing = Listing()
    descriptor = os.open(os.path.join(root, name), os.O_RDONLY)
    prefix = os.fsencode(name) + b"/" if name else b""
    try:
        _Lister(root, tuple(suffixes), listing, deep).add(descriptor, prefix, ())
    finally:
        os.close(descriptor)
    return listing


class _Lister:
    """Adds the files of folders to a listing.

    Folders are opened relative to the one above, and files looked up in their folder: the kernel
    then resolves one name for each file, not the whole path.
    """

    def __init__(self, root: str, suffixes: tuple[str, ...], listing: Listing, deep: bool) -> None:
        self._root = root
        self._suffixes = suffixes
        self._listing = listing
        self._deep = deep

    def add(self, descriptor: int, prefix: bytes, ancestors: tuple[tuple[int, int], ...]) -> None:
        """Add the files below an open folder.

        Args:
          descriptor: The folder.
          prefix: The beginning of the paths of its files.
          ancestors: (device, inode) of the folders above.
        """
        status = os.fstat(descriptor)
        identity = (status.st_dev, status.st_ino)
        if identity in ancestors:
            raise UserError(
                f"source folder '{self._shown(prefix)}' is a link to a folder that contains it: "
                "its images would repeat without end; remove the link"
            )
        images, suffixes = self._listing.images, self._suffixes
        with os.scandir(descriptor) as entries:
            for entry in entries:
                name = entry.name
                if name[0] == ".":
                    continue
                path = prefix + os.fsencode(name)
                if name.lower().endswith(suffixes) and entry.is_file():
                    status = entry.stat()
                    images.append((path, status.st_size, status.st_mtime_ns))
                elif not self._deep:
                    continue
                elif entry.is_dir():
                    self._add_below(descriptor, name, path, (*ancestors, identity))
                else:
                    self._listing.others.append(path)

    def _add_below(
        self, parent: int, name: str, path: bytes, ancestors: tuple[tuple[int, int], ...]
    ) -> None:
        descriptor = os.open(name, os.O_RDONLY, dir_fd=parent)
        try:
            self.add(descriptor, path + b"/", ancestors)
        finally:
            os.close(descriptor)

    def _shown(self, prefix: bytes) -> str:
        return shown_path(os.fsencode(os.path.join(self._root, "")) + prefix.rstrip(b"/"))


# Paths, sizes and versions of images, and paths of other files: pickled much faster than tuples.
_Packed = tuple[bytes, bytes, bytes, bytes]


def _list_by_processes(
    root: str, names: Sequence[str], suffixes: Sequence[str]
) -> Iterator[Listing]:
    work = partial(_list_packed, root, tuple(suffixes))
    processes = min(_PER_CPU * usable_cpus(), _MAX_PROCESSES)
    early: dict[str, _Packed] = {}
    results = run_pool(work, list(names), processes=processes, inline=False)
    for name in names:
        while name not in early:
            found, packed = next(results)
            early[found] = packed
        yield _unpack(early.pop(name))
    results.close()


def _list_packed(
    root: str, suffixes: tuple[str, ...], name: str, note: Callable[[Any], None]
) -> _Packed:
    del note
    try:
        listing = list_folder(root, name, suffixes)
    except OSError as error:
        raise JobError(os_error_text(error)) from error
    listing.images.sort()
    return (
        b"\0".join([path for path, _, _ in listing.images]),
        array("Q", [size for _, size, _ in listing.images]).tobytes(),
        array("q", [version for _, _, version in listing.images]).tobytes(),
        b"\0".join(listing.others),
    )


def _unpack(packed: _Packed) -> Listing:
    paths, sizes, versions, others = packed
    numbers = memoryview(sizes).cast("Q"), memoryview(versions).cast("q")
    images = list(zip(paths.split(b"\0"), *numbers, strict=True)) if paths else []
    return Listing(images, others.split(b"\0") if others else [])
