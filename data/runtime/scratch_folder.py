"""Temporary folders that the next use removes if their process was killed."""

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_LOCK: Final = "lock"
NEW_FOLDER_S: Final = 60  # a younger folder may not have its lock yet


@contextlib.contextmanager
def scratch_folder(prefix: str = "tenfold-scratch-") -> Iterator[Path]:
    """Create a temporary folder; first remove those that killed processes have left.

    A lock in the folder, held by this process, marks it as in use. The kernel releases the lock
    when the process ends, however it ends.

    Args:
      prefix: the beginning of the folder's name; only folders with the same one are removed.
    """
    for old in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        if _is_left_over(old):
            shutil.rmtree(old, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=prefix) as name:
        folder = Path(name)
        with (folder / _LOCK).open("w") as lock:
            with contextlib.suppress(OSError):  # no locks here: no folder is removed either
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield folder


def _is_left_over(folder: Path) -> bool:
    """Whether no process uses a folder of ours any more."""
    try:
        status = folder.lstat()
        is_old = time.time() - status.st_mtime >= NEW_FOLDER_S
        if status.st_uid != os.geteuid() or not stat.S_ISDIR(status.st_mode) or not is_old:
            return False
        with (folder / _LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:  # never locked, or another process is removing the folder
        return True
    except OSError:  # another process holds the lock
        return False
    return True
