"""Folders of shards: here on a local disk, in `gcs` on Cloud Storage, in `remote` elsewhere.

Files appear whole or not at all: a local one is written beside its name, synced and renamed; a
remote one is sent in one request, because closing a remote file publishes whatever it holds.
"""

import errno
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from tenfold.data.errors import UserError
from tenfold.data.storage.folder import GCS_SCHEMES, TEMPORARY_SUFFIX, Folder, is_url
from tenfold.data.storage.local_folder import LocalFolder

# How many small requests to remote storage are under way at once.
CONCURRENT_REQUESTS: Final = 16

Item = TypeVar("Item")

Result = TypeVar("Result")


def open_folder(path: str) -> Folder:
    """Returns the folder at `path`, which need not exist."""
    bare = path.removeprefix("file://")
    if not is_url(bare):
        return LocalFolder(bare)
    if bare.startswith(GCS_SCHEMES):
        from tenfold.data.storage.gcs import GcsFolder

        return GcsFolder(bare)
    from tenfold.data.storage.fsspec_folder import FsspecFolder

    return FsspecFolder(bare)


def for_each(
    folder: Folder, work: Callable[[Item], Result], items: Iterable[Item]
) -> list[Result]:
    """Returns what `work` returns for each item; remote storage does many at a time."""
    if isinstance(folder, LocalFolder):
        return [work(item) for item in items]
    with ThreadPoolExecutor(CONCURRENT_REQUESTS) as pool:
        return list(pool.map(work, items))


def save_file(path: str, data: bytes) -> None:
    """Makes or replaces one file, here or on remote storage, as a whole.

    Raises:
      UserError: it is no place for a file: a bucket, or one that does not exist.
      OSError: it cannot be written; here its folder must exist.
      JobError: the storage could not be reached.
    """
    path = path.removeprefix("file://")
    if is_url(path):
        folder, _, name = path.rpartition("/")
        if not is_url(folder) or not name:
            raise UserError(f"'{path}' names no file: give {path.rstrip('/')}/NAME")
    else:
        folder, name = os.path.split(os.path.abspath(os.path.expanduser(path)))
        if not os.path.isdir(folder):
            raise FileNotFoundError(errno.ENOENT, f"there is no folder '{folder}'")
    open_folder(folder).write(name, data)


def make_writable(folder: Folder) -> None:
    """Makes a local folder and checks that files can be made in it; lists a remote one.

    Raises:
      UserError: it cannot be made or written to; there is no such bucket, or it is closed to us.
      JobError: the storage could not be reached.
    """
    if not isinstance(folder, LocalFolder):
        folder.sizes()
        return
    probe = Path(folder.path, f".probe.{os.getpid()}{TEMPORARY_SUFFIX}")
    try:
        Path(folder.path).mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"output '{folder.path}' cannot be written to ({error.strerror}): choose another"
        ) from error
