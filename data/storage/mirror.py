"""A remote folder that follows a local one, whose files still grow.

An object store knows whole objects only: what grows is written to a local disk, and sent whole
from time to time. Every file is sent again when it has changed, but not for more than a tenth
of the time, however long it has become.
"""

import hashlib
import os
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

# Where in a work folder worker 0 has its files; the launcher, which may be there too, has others.
CHIEF_FOLDER: Final = "chief"
INTERVAL_S: Final = 5.0
_MAX_SHARE: Final = 0.1


def work_folder(url: str) -> Path:
    """Returns the folder of this machine where the files of the remote `url` grow: one below
    ``$XDG_CACHE_HOME/tenfold/runs``, by default ``~/.cache/tenfold/runs``.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    name = re.sub(r"[^\w.-]+", "-", url.rstrip("/").rpartition("/")[2])
    digest = hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:16]
    return cache.absolute() / "tenfold" / "runs" / f"{name}-{digest}"


def make_empty_folder(path: Path) -> Path:
    """Makes `path` an empty folder, and returns it.

    Raises:
      UserError: it cannot be made.
    """
    try:
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"'{path}' cannot be made ({error.strerror}): set XDG_CACHE_HOME to a folder for "
            "the files that are on their way to remote storage"
        ) from error
    return path


@dataclass
class _Sent:
    """What was last sent of a file, and when it may be sent again."""

    stamp: tuple[int, int]
    due: float


class Mirror:
    """Sends the files of `local` that match `patterns` to `remote`, whenever they change.

    Names that begin with a dot are files in the making, and stay where they are. Sending in
    the background goes on after an error; `flush` raises it.
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
        self._sent: dict[str, _Sent] = {}
        self._sending = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="mirror", daemon=True)

    def fetch(self, *patterns: str) -> None:
        """Gets the remote files that match `patterns`, for more to be added to them.

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
        self._sent[name] = _Sent(_stamp(target), 0.0)

    def start(self) -> None:
        """Begins to send in the background."""
        self._thread.start()

    def flush(self) -> None:
        """Sends everything that has changed.

        Raises:
          OSError, JobError: it could not be sent.
        """
        with self._sending:
            for name in self._changed():
                self._send(name)

    def close(self) -> None:
        """Ends the sending in the background, and flushes.

        Raises:
          OSError, JobError: the rest could not be sent.
        """
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        self.flush()

    def _follow(self) -> None:
        while not self._ended.wait(self._interval_s):
            with self._sending:
                for name in self._changed(due_at=time.monotonic()):
                    # What fails now is tried again at the next interval.
                    try:
                        self._send(name)
                    except (OSError, JobError, UserError):
                        break

    def _changed(self, *, due_at: float = float("inf")) -> list[str]:
        paths = sorted({path for pattern in self._patterns for path in self.local.glob(pattern)})
        names = [
            path.relative_to(self.local).as_posix()
            for path in paths
            if path.is_file() and not path.name.startswith(".")
        ]
        return [name for name in names if self._is_due(name, due_at)]

    def _is_due(self, name: str, due_at: float) -> bool:
        sent = self._sent.get(name)
        return sent is None or (sent.due <= due_at and sent.stamp != _stamp(self.local / name))

    def _send(self, name: str) -> None:
        # Taken before the bytes: what is added while they are read is sent the next time.
        stamp = _stamp(self.local / name)
        began = time.monotonic()
        self.remote.write(name, (self.local / name).read_bytes())
        now = time.monotonic()
        self._sent[name] = _Sent(stamp, now + (now - began) / _MAX_SHARE)


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
