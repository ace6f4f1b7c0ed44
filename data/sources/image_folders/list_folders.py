"""The files below class folders on a local disk, with their sizes: by several processes if many.

A scan of many files takes as long as the system calls for their sizes, and with cold caches as
long as the disk takes to find them one by one: processes share the first and overlap the second.
"""

import os
import sys
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any, Final

from tenfold.data.errors import JobError, UserError, os_error_text
from tenfold.data.runtime.cpus import usable_cpus
from tenfold.data.runtime.process_pool import can_fork, run_pool

# Files from which on further folders are listed by other processes.
_MANY_FILES: Final = 10_000
# The encoding of file names and its error handler: `os.fsencode` takes twice as long.
_NAMES: Final = (sys.getfilesystemencoding(), sys.getfilesystemencodeerrors())
# Processes per core: some wait for the disk.
_PER_CPU: Final = 2
_MAX_PROCESSES: Final = 8


def shown_path(path: bytes) -> str:
    """Return a path as one line of text; unprintable characters as in a Python literal."""
    text = path.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


@dataclass(frozen=True)
class Listing:
    """The files in one class folder, at any depth; the images ordered by path.

    Columns rather than rows: a million files cost no million objects, and pass between processes
    as a few blocks of bytes.

    Attributes:
      paths: The paths of the images below the root of the tree, joined; empty in a listing of
        the sizes only.
      lengths: The length of each of these paths, uint32 [n]; of the sizes only, [0].
      sizes: The size of each image in bytes, uint64 [n].
      versions: The version of each as in `Files`, int64 [n]; of the sizes only, [0].
      others: Paths of the files that are not images.
    """

    paths: bytes
    lengths: "array[int]"
    sizes: "array[int]"
    versions: "array[int]"
    others: list[bytes]

    @classmethod
    def of(
        cls, images: Iterable[tuple[bytes, int, int]], others: Iterable[bytes] = ()
    ) -> "Listing":
        """Return the listing of images, given as (path, size, version) in any order."""
        ordered = sorted(images)
        return cls(
            b"".join([path for path, _, _ in ordered]),
            array("I", [len(path) for path, _, _ in ordered]),
            array("Q", [size for _, size, _ in ordered]),
            array("q", [version for _, _, version in ordered]),
            list(others),
        )

    @classmethod
    def of_sizes(cls, sizes: "array[int]", others: Iterable[bytes] = ()) -> "Listing":
        """Return a listing of the sizes only."""
        return cls(b"", array("I"), sizes, array("q"), list(others))

    @classmethod
    def joined(cls, parts: "Sequence[Listing]") -> "Listing":
        """Return the images of several listings as one; of the sizes only, if one of them is."""
        if all(part.paths or not len(part) for part in parts):
            return cls.of(image for part in parts for image in part.images)
        return cls.of_sizes(sum((part.sizes for part in parts), array("Q")))

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.sizes)

    @property
    def images(self) -> list[tuple[bytes, int, int]]:
        """(path, size, version) of each image."""
        ends = list(accumulate(self.lengths))
        paths = (self.paths[begin:end] for begin, end in zip([0, *ends], ends, strict=False))
        return list(zip(paths, self.sizes, self.versions, strict=True))


@dataclass(frozen=True)
class ListingOptions:
    """What a listing holds.

    Attributes:
      suffixes: The suffixes of images, in lower case.
      sizes_only: Leave out paths and versions.
      deep: Whether the files of folders in the folder count too.
    """

    suffixes: tuple[str, ...]
    sizes_only: bool = False
    deep: bool = True


def list_folders(root: str, names: Sequence[str], options: ListingOptions) -> Iterator[Listing]:
    """Yield the listing of each of the folders `names` in `root`, in order.

    Args:
      root: The root of the tree.
      names: Names of folders in it.
      options: What the listings hold.

    Raises:
      UserError: a symbolic link points to a folder that contains it.
    """
    num_files = 0
    for index, name in enumerate(names):
        listing = list_folder(root, name, options)
        num_files += len(listing)
        yield listing
        rest = names[index + 1 :]
        if num_files >= _MANY_FILES and len(rest) > 1 and can_fork():
            yield from _list_by_processes(root, rest, options)
            return


def list_folder(root: str, name: str, options: ListingOptions) -> Listing:
    """Return the files below the folder `name` of `root`; "" is `root` itself.

    Args:
      root: The root of the tree.
      name: The name of the folder, which the paths begin with.
      options: What the listing holds.

    Raises:
      UserError: a symbolic link points to a folder that contains it.
    """
    lister = _Lister(root, options)
    descriptor = os.open(os.path.join(root, name), os.O_RDONLY)
    try:
        lister.add(descriptor, os.fsencode(name) + b"/" if name else b"", ())
    finally:
        os.close(descriptor)
    if options.sizes_only:
        return Listing.of_sizes(lister.sizes, lister.others)
    return Listing.of(lister.images, lister.others)


class _Lister:
    """Collects the files of folders.

    Folders are opened relative to the one above, and files looked up in their folder: the kernel
    then resolves one name for each file, not the whole path.
    """

    def __init__(self, root: str, options: ListingOptions) -> None:
        self.images: list[tuple[bytes, int, int]] = []
        self.sizes = array("Q")
        self.others: list[bytes] = []
        self._root = root
        self._options = options

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
        images, suffixes = self.images, self._options.suffixes
        sizes = self.sizes if self._options.sizes_only else None
        with os.scandir(descriptor) as entries:
            for entry in entries:
                name = entry.name
                if name[0] == ".":
                    continue
                is_image = name.lower().endswith(suffixes) and entry.is_file()
                if is_image and sizes is not None:
                    sizes.append(entry.stat().st_size)
                    continue
                path = prefix + name.encode(*_NAMES)
                if is_image:
                    status = entry.stat()
                    images.append((path, status.st_size, status.st_mtime_ns))
                elif not self._options.deep:
                    continue
                elif entry.is_dir():
                    self._add_below(descriptor, name, path, (*ancestors, identity))
                else:
                    self.others.append(path)

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


def _list_by_processes(
    root: str, names: Sequence[str], options: ListingOptions
) -> Iterator[Listing]:
    work = partial(_list_one, root, options)
    processes = min(_PER_CPU * usable_cpus(), _MAX_PROCESSES)
    early: dict[str, Listing] = {}
    results = run_pool(work, list(names), processes=processes, inline=False)
    for name in names:
        while name not in early:
            found, listing = next(results)
            early[found] = listing
        yield early.pop(name)
    results.close()


def _list_one(
    root: str, options: ListingOptions, name: str, note: Callable[[Any], None]
) -> Listing:
    del note
    try:
        return list_folder(root, name, options)
    except OSError as error:
        raise JobError(os_error_text(error)) from error
