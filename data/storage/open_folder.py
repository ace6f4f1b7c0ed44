"""From the path that a user gives to a Folder, and helpers over any Folder.

Files appear completely or not at all. A local file is renamed once it is complete; a remote file
is uploaded in one request, because closing a remote file object publishes a partial upload.
"""

import errno
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, TypeVar

from tenfold.data.errors import UserError
from tenfold.data.storage.folder import GCS_SCHEMES, Folder, is_url
from tenfold.data.storage.local_folder import LocalFolder, temporary_beside

# Small requests to remote storage that run at once.
CONCURRENT_REQUESTS: Final = 16

Item = TypeVar("Item")
Result = TypeVar("Result")


def open_folder(path: str) -> Folder:
    """Return the folder at `path`: a local path, ``file://…``, ``gs://…`` or a URL for fsspec.

    The folder need not exist.

    Raises:
      UserError: the URL names no bucket.
    """
    bare = path.removeprefix("file://")
    if not is_url(bare):
        return LocalFolder(bare)
    if bare.startswith(GCS_SCHEMES):
        from tenfold.data.storage.gcs.gcs_folder import GcsFolder

        return GcsFolder(bare)
    from tenfold.data.storage.fsspec_folder import FsspecFolder

    return FsspecFolder(bare)


def for_each(
    folder: Folder, work: Callable[[Item], Result], items: Iterable[Item]
) -> list[Result]:
    """Return the results of `work` for all items, in order; concurrently for remote storage."""
    if isinstance(folder, LocalFolder):
        return [work(item) for item in items]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(CONCURRENT_REQUESTS) as pool:
        return list(pool.map(work, items))


def save_file(path: str, data: bytes) -> None:
    """Create or replace one file, local or remote, atomically.

    Raises:
      UserError: `path` is only a bucket, or the bucket does not exist.
      OSError: the file cannot be written; a local folder must exist.
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


def read_file(path: str) -> bytes | None:
    """Return the content of one file, local or remote; None if there is none.

    Raises:
      UserError: a remote path names no file, or a local one cannot be read.
      JobError: the storage could not be reached.
    """
    path = path.removeprefix("file://")
    if is_url(path):
        folder, _, name = path.rpartition("/")
        if not is_url(folder) or not name:
            raise UserError(f"'{path}' names no file: give {path.rstrip('/')}/NAME")
        return open_folder(folder).read(name)
    try:
        return Path(path).expanduser().read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"'{path}' cannot be read: {error.strerror}") from error


def make_writable(folder: Folder) -> None:
    """Create a local folder and check that it is writable; only list a remote folder.

    Raises:
      UserError: the folder cannot be created or written to; the bucket does not exist or is not
        accessible.
      JobError: the storage could not be reached.
    """
    if not isinstance(folder, LocalFolder):
        folder.sizes()
        return
    probe = temporary_beside(Path(folder.path, "probe"))
    try:
        Path(folder.path).mkdir(parents=True, exist_ok=True)
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"output '{folder.path}' cannot be written to ({error.strerror}): choose another"
        ) from error
