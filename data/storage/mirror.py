"""Upload the growing files of a local folder to a remote folder, repeatedly.

Object stores hold whole objects only. So files that grow are written to a local disk, and
changed files are uploaded whole, throttled to at most 10 % of wall time.
"""

import hashlib
import re
import shutil
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tenfold.data.errors import JobError, UserError
from tenfold.data.storage.folder import Folder
from tenfold.data.storage.local_folder import make_private_folder, user_cache_folder

# Worker 0's files within a work folder; the launcher of the same machine writes beside it.
CHIEF_FOLDER: Final = "chief"
INTERVAL_S: Final = 5.0
# Largest share of wall time that uploads of one file may take.
_MAX_UPLOAD_SHARE: Final = 0.1


def work_folder(url: str) -> Path:
    """Return the folder of this machine in which the files of the remote `url` grow.

    It lies in `user_cache_folder("runs")`; its name holds a hash of the URL.
    """
    name = re.sub(r"[^\w.-]+", "-", url.rstrip("/").rpartition("/")[2])
    digest = hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:16]
    return user_cache_folder("runs") / f"{name}-{digest}"


def make_empty_folder(path: Path) -> Path:
    """Create `path` as an empty folder, deleting its content; return it.

    Raises:
      UserError: the folder cannot be created, is a symbolic link, or lies in a folder of another
        user or open to others.
    """
    remedy = "set XDG_CACHE_HOME to another folder"
    try:
        make_private_folder(path.parent, what="the folder of runs", remedy=remedy)
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(mode=0o700, exist_ok=True)
        if path.is_symlink():
            raise UserError(f"'{path}' is a symbolic link, not a folder: remove it, or {remedy}")
    except OSError as error:
        raise UserError(
            f"'{path}' cannot be created ({error.strerror}): set XDG_CACHE_HOME to a folder for "
            "the files that wait for their upload to remote storage"
        ) from error
    return path


@dataclass
class _Upload:
    """The last upload of a file: its (size, mtime) then, and when the next one may begin."""

    stamp: tuple[int, int]
    next_at: float


class Mirror:
    """Uploads the files of `local` that match `patterns` to `remote` whenever they change.

    Files whose names begin with a dot are temporary and are not uploaded. A background thread
    uploads every `interval_s` seconds after `start`; it continues after an error, which the next
    `flush` raises if it persists. A lock lets either the thread or `flush` upload, so that an
    older state of a file never overwrites a newer one.

    Args:
      local: The local folder.
      remote: The folder that follows it.
      patterns: Glob patterns relative to `local`.
      interval_s: Seconds between two rounds of uploads.
    """

    def __init__(
        self,
        local: Path,
        remote: Folder,
        *,
        patterns: Sequence[str],
        interval_s: float = INTERVAL_S,
    ) -> None:
        self.local = local
        self.remote = remote
        self._patterns = tuple(patterns)
        self._interval_s = interval_s
        self._uploads: dict[str, _Upload] = {}
        self._uploading = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mirror", daemon=True)

    def fetch(self, *patterns: str) -> None:
        """Download the remote files that match `patterns`, so that they can be appended to.

        Raises:
          OSError, JobError: the storage could not be read.
        """
        for pattern in patterns:
            folder, _, wanted = pattern.rpartition("/")
            for name in self.remote.sizes(folder):
                if Path(name).match(wanted):
                    self._fetch(f"{folder}/{name}".lstrip("/"))

    def _fetch(self, name: str) -> None:
        target = self.local / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(self.remote.read(name) or b"")
        self._uploads[name] = _Upload(_stamp(target), 0.0)

    def start(self) -> None:
        """Start the background thread."""
        self._thread.start()

    def flush(self) -> None:
        """Upload every changed file now.

        Raises:
          OSError, JobError: a file could not be uploaded.
        """
        with self._uploading:
            for name in self._changed():
                self._upload(name)

    def close(self) -> None:
        """Stop the background thread and flush.

        Raises:
          OSError, JobError: a file could not be uploaded.
        """
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join()
        self.flush()

    def _run(self) -> None:
        while not self._closed.wait(self._interval_s):
            with self._uploading:
                for name in self._changed(now=time.monotonic()):
                    # The next interval retries; further files would fail for the same reason.
                    try:
                        self._upload(name)
                    except (OSError, JobError, UserError):
                        break

    def _changed(self, *, now: float = float("inf")) -> list[str]:
        """Return the names of the files to upload, in order; without `now`, not throttled."""
        paths = sorted({path for pattern in self._patterns for path in self.local.glob(pattern)})
        names = [
            path.relative_to(self.local).as_posix()
            for path in paths
            if path.is_file() and not path.name.startswith(".")
        ]
        return [name for name in names if self._is_due(name, now)]

    def _is_due(self, name: str, now: float) -> bool:
        last = self._uploads.get(name)
        return last is None or (last.next_at <= now and last.stamp != _stamp(self.local / name))

    def _upload(self, name: str) -> None:
        # The stamp is taken before the bytes are read, so that a later change is uploaded again.
        stamp = _stamp(self.local / name)
        began = time.monotonic()
        self.remote.write(name, (self.local / name).read_bytes())
        now = time.monotonic()
        self._uploads[name] = _Upload(stamp, now + (now - began) / _MAX_UPLOAD_SHARE)


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
