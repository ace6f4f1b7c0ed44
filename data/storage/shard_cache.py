"""A cache of shards on a local disk, shared by all processes of a host.

A file's name holds its CRC32C, the sum of its records' fingerprints and its size, so that what
it must hold is known without asking anyone, and a data set that was written anew never meets
the old one's files. It appears by rename, after size and CRC32C were checked, and is checked
again when a process first uses it. Locks are flock(2)'s and go with the process that held them:

    KEY.tfrecord   shared: in use, not to be evicted; exclusive: being evicted
    .KEY.part      exclusive: being filled; where nobody holds it, a dead process has left it
    .lock          exclusive: room is being made, or a filled file gets its name
"""

import contextlib
import errno
import fcntl
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tenfold.data.errors import JobError, UserError
from tenfold.data.format.manifest import ShardInfo
from tenfold.data.format.tfrecord import extend_crc32c
from tenfold.data.storage.retry import TransientError
from tenfold.data.units import format_size

AUTO: Final = "auto"
OFF: Final = "off"
DEFAULT_BYTES: Final = 50 * 10**9

_SUFFIX: Final = ".tfrecord"
_PART: Final = ".part"
# Blocks this large are summed while the processor's cache still holds them.
_BLOCK: Final = 1 << 18
_POLL_S: Final = 0.02
_REMEDY: Final = "give another --cache_dir, or --cache=off"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CacheOptions:
    """Whether shards on remote storage are cached (``auto``) or not (``off``), where, and how
    many bytes at most; `folder` "" is `default_cache_folder`.
    """

    mode: str = AUTO
    folder: str = ""
    limit_bytes: int = DEFAULT_BYTES

    def __post_init__(self) -> None:
        if self.mode not in (AUTO, OFF):
            raise UserError(f"cache '{self.mode}' is neither {AUTO} nor {OFF}")
        if self.limit_bytes < 0:
            raise UserError(f"cache_size is {self.limit_bytes}: it cannot be below 0")


CACHE: Final = CacheOptions()


def default_cache_folder() -> Path:
    """Returns ``$XDG_CACHE_HOME/tenfold/shards``, by default ``~/.cache/tenfold/shards``."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(cache).absolute() / "tenfold" / "shards"


class DamagedFetch(TransientError):
    """What was fetched has not the CRC32C that it should have."""


class Pin:
    """A cached shard in use: it stays until `close`, or until the process ends."""

    def __init__(self, path: Path, descriptor: int, num_bytes: int) -> None:
        self.path = path
        self.num_bytes = num_bytes
        self._descriptor = descriptor

    def close(self) -> None:
        """Lets the shard be evicted."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    __del__ = close


class Cache:
    """The cache in `folder`. Safe among threads and processes.

    Raises:
      UserError: the folder cannot be made or written to.
    """

    def __init__(self, folder: Path, limit_bytes: int = DEFAULT_BYTES) -> None:
        self.folder = folder
        self.limit_bytes = limit_bytes
        self._checked: set[tuple[int, int, int]] = set()
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with self._locked():
                pass
        except OSError as error:
            raise UserError(
                f"cache_dir '{folder}' cannot be written to ({error.strerror}): {_REMEDY}"
            ) from error

    def path_of(self, shard: ShardInfo) -> Path:
        """Returns where a shard lies, or would lie."""
        name = f"{shard.crc32c:08x}-{shard.fingerprint:016x}-{shard.bytes}{_SUFFIX}"
        return self.folder / name

    def pin(self, shard: ShardInfo) -> Pin | None:
        """Returns a shard that is there and whole, marked as just used; None where it is not."""
        path = self.path_of(shard)
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        pin = Pin(path, descriptor, shard.bytes)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        found = os.fstat(descriptor)
        if not found.st_nlink:  # evicted meanwhile
            return None
        state = (found.st_ino, found.st_mtime_ns, found.st_size)
        if state not in self._checked:
            if not _holds(descriptor, shard):
                _log.warning("%s is damaged: it is fetched again", path)
                path.unlink(missing_ok=True)
                return None
            self._checked.add(state)
        with contextlib.suppress(OSError):
            os.utime(descriptor, ns=(time.time_ns(), found.st_mtime_ns))
        return pin

    def obtain(
        self, shard: ShardInfo, fetch: Callable[[int], int], *, needed: bool = True
    ) -> Pin | None:
        """Returns a shard, after `fetch` has written it to a descriptor where it is not there.

        `fetch` returns the CRC32C of what it has written.

        Least recently used shards make room for it. Where those in use leave none, the cache
        outgrows its limit for a shard that is `needed`; for another this returns None.

        Raises:
          DamagedFetch: what was fetched is not what it should be.
          JobError: the disk is full.
        """
        path = self.path_of(shard)
        part = self.folder / f".{path.name}{_PART}"
        while True:
            pin = self.pin(shard)
            if pin is not None:
                return pin
            with _filling(part) as descriptor:
                if path.exists():  # another process was at it
                    continue
                if not self._reserve(descriptor, part, shard.bytes, needed=needed):
                    return None
                crc = self._fill(descriptor, fetch)
                if (os.fstat(descriptor).st_size, crc) != (shard.bytes, shard.crc32c):
                    raise DamagedFetch("what was fetched is not what was written (CRC32C)")
                self._checked.add(_state(descriptor))
                with self._locked():  # who makes room sees it once, with one name or the other
                    os.rename(part, path)

    def _fill(self, descriptor: int, fetch: Callable[[int], int]) -> int:
        try:
            return fetch(descriptor)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise JobError(f"cache_dir '{self.folder}': the disk is full: {_REMEDY}") from error

    def used_bytes(self) -> int:
        """Returns the bytes of all files, those being filled included."""
        with self._locked():
            return sum(size for _, size, _ in self._files())

    def _files(self) -> list[tuple[float, int, Path]]:
        """Returns (last use, bytes, path) of each file; none gets another name under the lock."""
        files = []
        with os.scandir(self.folder) as entries:
            for entry in entries:
                if entry.name.endswith((_SUFFIX, _PART)):
                    with contextlib.suppress(FileNotFoundError):
                        status = entry.stat()
                        files.append((status.st_atime, status.st_size, Path(entry.path)))
        return files

    def _reserve(self, descriptor: int, part: Path, num_bytes: int, *, needed: bool) -> bool:
        """Gives the file `part` its size, after making room for it; says if there was any."""
        with self._locked():
            missing = self._make_room(num_bytes, except_for=part)
            full = missing > 0 and shutil.disk_usage(self.folder).free < num_bytes
            if full and needed:
                raise JobError(
                    f"cache_dir '{self.folder}' has no room for a shard of "
                    f"{format_size(num_bytes)}: {_REMEDY}"
                )
            if missing > 0 and (full or not needed):
                return False
            os.ftruncate(descriptor, num_bytes)
            return True

    def _make_room(self, num_bytes: int, *, except_for: Path) -> int:
        """Evicts until `num_bytes` more have room; returns the bytes that are missing then."""
        files = [file for file in self._files() if file[2] != except_for]
        used = sum(size for _, size, _ in files)
        missing = max(
            used + num_bytes - self.limit_bytes,
            num_bytes - shutil.disk_usage(self.folder).free,
        )
        for _, size, path in sorted(files):
            if missing <= 0:
                break
            if _evict(path):
                missing -= size
        return missing

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def _filling(part: Path) -> Iterator[int]:
    """Gives the descriptor of a file that nobody else fills; removes it unless it was renamed."""
    while (descriptor := _lock_part(part)) is None:
        time.sleep(_POLL_S)
    try:
        yield descriptor
    finally:
        if _is_at(descriptor, part):
            part.unlink(missing_ok=True)
        os.close(descriptor)


def _lock_part(part: Path) -> int | None:
    """Returns the locked descriptor of `part`, None where another process fills it.

    Never waits for the lock: the file may get its final name meanwhile, and then stay locked by
    those who use it.
    """
    descriptor = os.open(part, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_at(descriptor, part):
            return descriptor
    except BlockingIOError:
        pass
    os.close(descriptor)
    return None


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _evict(path: Path) -> bool:
    """Removes a file that nobody uses; says if it is gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:  # it could not be filled, or was damaged
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)


def _state(descriptor: int) -> tuple[int, int, int]:
    found = os.fstat(descriptor)
    return found.st_ino, found.st_mtime_ns, found.st_size


def _holds(descriptor: int, shard: ShardInfo) -> bool:
    """Says whether a file has the size and CRC32C of `shard`."""
    if os.fstat(descriptor).st_size != shard.bytes:
        return False
    crc = offset = 0
    while block := os.pread(descriptor, _BLOCK, offset):
        crc = extend_crc32c(crc, block)
        offset += len(block)
    return crc == shard.crc32c
