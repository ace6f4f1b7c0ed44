"""A copy of the newest checkpoint on the memory disk of each host.

After a restart on the same hosts it spares the download. It is used only if its CRC32C is that of
the file on remote storage, so that a copy of another run, or of other values, does no harm.
"""

import contextlib
import hashlib
import os
import shutil
import time
from pathlib import Path
from typing import Final

from tenfold.data.errors import UserError
from tenfold.data.format.tfrecord import crc32c
from tenfold.data.storage.folder import GCS_SCHEMES, Folder
from tenfold.data.storage.local_folder import make_private_folder, temporary_beside

MEMORY_DISK: Final = Path("/dev/shm")

# The largest part of the free memory disk that a copy takes.
_MAX_SHARE: Final = 0.25
# Copies of jobs that could not remove them are removed after this time.
_MAX_AGE_S: Final = 24 * 3600.0


class MemoryCopy:
    """The copy of a run's newest checkpoint on this host; workers of one host share it.

    Args:
      run_dir: the run directory.
      disk: the folder of the memory disk.
    """

    def __init__(self, run_dir: str, *, disk: Path = MEMORY_DISK) -> None:
        self._folder = disk / f"tenfold-{os.geteuid()}"
        self._prefix = hashlib.sha256(run_dir.encode()).hexdigest()[:16]

    def write(self, name: str, data: bytes) -> None:
        """Keep a checkpoint in place of the one before; nothing where there is no room for it."""
        with contextlib.suppress(OSError, UserError):
            make_private_folder(self._folder, what="folder", remedy="remove it")
            self._remove_old(name)
            path = self._path_of(name)
            if len(data) > _MAX_SHARE * shutil.disk_usage(self._folder).free or path.exists():
                return
            temporary = temporary_beside(path)
            try:
                temporary.write_bytes(data)
                os.replace(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)

    def read(self, folder: Folder, name: str) -> bytes | None:
        """Return a checkpoint of `folder` from the copy; None if it is not the same file."""
        with contextlib.suppress(OSError, UserError):
            make_private_folder(self._folder, what="folder", remedy="remove it")
            data = self._path_of(name).read_bytes()
            entry = folder.entry(name)
            if entry is not None and (entry.bytes, entry.crc32c) == (len(data), crc32c(data)):
                return data
        return None

    def remove(self) -> None:
        """Remove the copy."""
        with contextlib.suppress(OSError):
            self._remove_old("")

    def _path_of(self, name: str) -> Path:
        return self._folder / f"{self._prefix}-{name}"

    def _remove_old(self, kept: str) -> None:
        """Remove the copies of this run but that called `kept`, and old ones of any run."""
        oldest = time.time() - _MAX_AGE_S
        for path in self._folder.iterdir():
            is_own = path.name.startswith(self._prefix)
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < oldest or (is_own and path != self._path_of(kept)):
                    path.unlink()


def memory_copy(run_dir: str) -> MemoryCopy | None:
    """Return the copy for a run on storage that keeps a CRC32C of each file, else None."""
    keeps_crc = run_dir.startswith(GCS_SCHEMES)
    return MemoryCopy(run_dir) if keeps_crc and MEMORY_DISK.is_dir() else None
