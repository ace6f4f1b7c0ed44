"""A cache of shards on a local disk, shared by all processes of a host.

The name of a cached file consists of its CRC32C, the sum of its records' fingerprints and its
size. So its expected content is known from the name alone, and a data set that was rewritten
never meets files of its old version. A file appears by rename once its size and CRC32C were
checked; each process checks it again before its first use.

Locks are those of flock(2), which the kernel releases when a process ends:

    KEY.tfrecord   shared: in use, not to be evicted; exclusive: being evicted. Besides, a shared
                   lock of fcntl(2) on its open file description: fetched ahead of its use, to be
                   evicted only for a shard that a reader needs now
    .KEY.part      exclusive: being filled; unlocked: left by a process that died
    .lock          exclusive: room is being made, or a complete file is being renamed

A file gets all its blocks before it is filled, so that the free space that others see is free.
"""

import contextlib
import errno
import fcntl
import logging
import os
import shutil
import struct
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tenfold.data.errors import JobError, UserError
from tenfold.data.format.manifest import ShardInfo
from tenfold.data.format.tfrecord import extend_crc32c
from tenfold.data.storage.local_folder import make_private_folder, user_cache_folder
from tenfold.data.storage.retry import WARN_AFTER_S, TransientError
from tenfold.data.units import format_size

AUTO: Final = "auto"
OFF: Final = "off"
DEFAULT_CACHE_BYTES: Final = 50 * 10**9

_SUFFIX: Final = ".tfrecord"
_PART: Final = ".part"
# Block size of checksums: small enough to stay in the processor's cache.
_BLOCK_BYTES: Final = 1 << 18
_POLL_S: Final = 0.02
# A needed shard waits so long for room. If its own reader has all the others open, none is freed.
_WAIT_S: Final = 120.0
_ROOM_POLL_S: Final = 0.05
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
# struct flock of Linux: l_type, l_whence, l_start, l_len, l_pid.
_FLOCK: Final = struct.Struct("hhqqi0q")
_REMEDY: Final = "give another --cache_dir, or --cache=off"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CacheOptions:
    """The cache of shards from remote storage.

    Attributes:
      mode: ``auto`` caches them on the local disk, ``off`` does not.
      folder: Local folder of the cache; "" is ``$XDG_CACHE_HOME/tenfold/shards``, by default
        ``~/.cache/tenfold/shards``.
      limit_bytes: Size to which the cache is kept by evicting the least recently used shards.
    """

    mode: str = AUTO
    folder: str = ""
    limit_bytes: int = DEFAULT_CACHE_BYTES

    def __post_init__(self) -> None:
        if self.mode not in (AUTO, OFF):
            raise UserError(f"cache '{self.mode}' is neither {AUTO} nor {OFF}")
        if self.limit_bytes < 0:
            raise UserError(f"cache_size is {self.limit_bytes}: it cannot be below 0")


DEFAULT_CACHE: Final = CacheOptions()


def default_cache_folder() -> Path:
    """Return ``$XDG_CACHE_HOME/tenfold/shards``, by default ``~/.cache/tenfold/shards``."""
    return user_cache_folder("shards")


class DamagedFetch(TransientError):
    """A fetched shard has the wrong size or CRC32C."""


class Pin:
    """A cached shard in use: it is not evicted before `close` or the end of the process.

    Between `yield_to_needed` and `reclaim` it may be evicted, but only for a shard that a reader
    needs now, not for another that is fetched ahead.
    """

    def __init__(self, path: Path, descriptor: int, num_bytes: int) -> None:
        self.path = path
        self.num_bytes = num_bytes
        self._descriptor = descriptor

    def yield_to_needed(self) -> None:
        """Let the shard be evicted for shards that readers need now."""
        _lock_range(self._descriptor, fcntl.F_RDLCK)
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def reclaim(self) -> bool:
        """Put the shard in use again; return False if it has been evicted."""
        fcntl.flock(self._descriptor, fcntl.LOCK_SH)
        _lock_range(self._descriptor, fcntl.F_UNLCK)
        return os.fstat(self._descriptor).st_nlink > 0

    def close(self) -> None:
        """Allow the shard to be evicted."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    __del__ = close


class Cache:
    """The cache in `folder`, kept to `limit_bytes`; safe among threads and processes.

    Raises:
      UserError: the folder cannot be created or written to, belongs to another user, or others
        may write to it.
    """

    def __init__(self, folder: Path, limit_bytes: int = DEFAULT_CACHE_BYTES) -> None:
        self.folder = folder
        self.limit_bytes = limit_bytes
        self._checked: set[tuple[int, int, int]] = set()
        # Threads that wait for room, in the order in which readers need their shards.
        self._queue: deque[object] = deque()
        try:
            make_private_folder(folder, what="cache_dir", remedy=_REMEDY)
            with self._locked():
                pass
        except OSError as error:
            raise UserError(
                f"cache_dir '{folder}' cannot be written to ({error.strerror}): {_REMEDY}"
            ) from error

    def path_of(self, shard: ShardInfo) -> Path:
        """Return the path of a shard in the cache, whether or not it is there."""
        name = f"{shard.crc32c:08x}-{shard.fingerprint:016x}-{shard.bytes}{_SUFFIX}"
        return self.folder / name

    def pin(self, shard: ShardInfo) -> Pin | None:
        """Return a cached shard, marked as just used; None if it is missing or damaged."""
        path = self.path_of(shard)
        try:
            descriptor = _open(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        pin = Pin(path, descriptor, shard.bytes)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        found = os.fstat(descriptor)
        if not found.st_nlink:  # evicted between open and flock
            return None
        state = (found.st_ino, found.st_mtime_ns, found.st_size)
        if state not in self._checked:
            if not _holds(descriptor, shard):
                _log.warning("%s is damaged: fetching it again", path)
                path.unlink(missing_ok=True)
                return None
            self._checked.add(state)
        with contextlib.suppress(OSError):
            os.utime(descriptor, ns=(time.time_ns(), found.st_mtime_ns))
        return pin

    def obtain(
        self, shard: ShardInfo, fetch: Callable[[int], int], *, needed: bool = True
    ) -> Pin | None:
        """Return a shard, fetched first if it is not in the cache.

        The least recently used shards are evicted to make room. Only one process fetches a
        shard; others wait for it. If the disk is full, a needed shard waits as long as other
        shards of the cache are in use.

        Args:
          shard: The shard.
          fetch: Writes the shard to an open file descriptor and returns the CRC32C of the
            bytes written.
          needed: What to do if the shards in use leave no room: exceed the limit (True), or
            return None (False).

        Raises:
          DamagedFetch: the fetched bytes have the wrong size or CRC32C.
          JobError: the disk is full, and no shard in use was given back within two minutes.
        """
        path = self.path_of(shard)
        part = self.folder / f".{path.name}{_PART}"
        while True:
            pin = self.pin(shard)
            if pin is not None:
                return pin
            with _filling(part) as descriptor:
                if path.exists():  # another process fetched it while this one waited
                    continue
                if needed:
                    self._wait_for_room(descriptor, part, shard.bytes)
                elif not self._reserve(descriptor, part, shard.bytes, needed=False):
                    return None
                crc = self._fill(descriptor, fetch)
                if (os.fstat(descriptor).st_size, crc) != (shard.bytes, shard.crc32c):
                    raise DamagedFetch("the fetched shard is not as it was written (CRC32C)")
                self._checked.add(_state(descriptor))
                # Under the lock, so that _make_room counts the file exactly once.
                with self._locked():
                    os.rename(part, path)

    def _fill(self, descriptor: int, fetch: Callable[[int], int]) -> int:
        try:
            return fetch(descriptor)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            raise JobError(f"cache_dir '{self.folder}': the disk is full: {_REMEDY}") from error

    def used_bytes(self) -> int:
        """Return the size of all files in bytes, including those being filled."""
        with self._locked():
            return sum(size for _, size, _ in self._files())

    def _files(self) -> list[tuple[float, int, Path]]:
        """Return (last use, bytes, path) of each file; call it under the lock of renames."""
        files = []
        with os.scandir(self.folder) as entries:
            for entry in entries:
                if entry.name.endswith((_SUFFIX, _PART)):
                    with contextlib.suppress(FileNotFoundError):
                        status = entry.stat(follow_symlinks=False)
                        files.append((status.st_atime, status.st_size, Path(entry.path)))
        return files

    def _wait_for_room(self, descriptor: int, part: Path, num_bytes: int) -> None:
        """Reserve room for a needed shard, after those that waited before."""
        began, warned, turn = time.monotonic(), False, object()
        self._queue.append(turn)
        try:
            while self._queue[0] is not turn or not self._reserve(
                descriptor, part, num_bytes, needed=True
            ):
                waited_s = time.monotonic() - began
                if waited_s > _WAIT_S:
                    raise self._no_room(num_bytes, f" (waited {waited_s:.0f} s)")
                if not warned and waited_s > WARN_AFTER_S:
                    warned = True
                    _log.warning(
                        "cache_dir '%s' has no room for a shard of %s: waiting until one in use "
                        "has been read", self.folder, format_size(num_bytes),
                    )  # fmt: skip
                time.sleep(_ROOM_POLL_S)
        finally:
            self._queue.remove(turn)

    def _no_room(self, num_bytes: int, waited: str = "") -> JobError:
        return JobError(
            f"cache_dir '{self.folder}' has no room for a shard of {format_size(num_bytes)} "
            f"beside the shards in use{waited}: {_REMEDY}"
        )

    def _reserve(self, descriptor: int, part: Path, num_bytes: int, *, needed: bool) -> bool:
        """Make room for the file `part` and give it all its blocks; return False for no room.

        Raises:
          JobError: a needed shard has no room, and no file is in use that could give it.
        """
        if self._queue and not needed:  # it would take the room that a reader waits for
            return False
        with self._locked():
            os.ftruncate(descriptor, 0)  # drop what a process that died has left
            files = sorted(file for file in self._files() if file[2] != part)
            evictions = _evictions(files, needed=needed)
            missing = self._missing(num_bytes, files)
            while missing > 0 and (size := next(evictions, 0)):
                missing -= size
            if missing > 0 and not needed:
                return False
            while not _allocate(descriptor, num_bytes):
                if next(evictions, 0):
                    continue
                # Parts of other processes that wait for room are empty.
                if needed and not any(size and path.exists() for _, size, path in files):
                    raise self._no_room(num_bytes)
                return False
            return True

    def _missing(self, num_bytes: int, files: "list[tuple[float, int, Path]]") -> int:
        """Return the bytes to evict until `num_bytes` more are within the limit and the disk."""
        used = sum(size for _, size, _ in files)
        free = shutil.disk_usage(self.folder).free
        return max(used + num_bytes - self.limit_bytes, num_bytes - free)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = _open(self.folder / ".lock", os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _open(path: Path, flags: int) -> int:
    """Open a file of the cache, of which several processes know the name.

    Raises:
      UserError: it is a symbolic link, which this module never makes.
    """
    try:
        return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise UserError(
            f"'{path}' is a symbolic link, which a cache never holds: remove it, or {_REMEDY}"
        ) from error


@contextlib.contextmanager
def _filling(part: Path) -> Iterator[int]:
    """Lock `part` for filling and yield its descriptor; remove the file unless it was renamed."""
    while (descriptor := _lock_part(part)) is None:
        time.sleep(_POLL_S)
    try:
        yield descriptor
    finally:
        if _is_at(descriptor, part):
            part.unlink(missing_ok=True)
        os.close(descriptor)


def _lock_part(part: Path) -> int | None:
    """Return the locked descriptor of `part`, or None if another process fills it.

    Does not wait for the lock: once the other process has renamed the file, the same file stays
    locked by its readers.
    """
    descriptor = _open(part, os.O_RDWR | os.O_CREAT)
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
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def _allocate(descriptor: int, num_bytes: int) -> bool:
    """Give an empty file its size and all its blocks; return False if the disk is full."""
    try:
        if num_bytes:
            os.posix_fallocate(descriptor, 0, num_bytes)
        return True
    except OSError as error:
        if error.errno not in _FULL:
            raise
        os.ftruncate(descriptor, 0)  # the blocks that it got
        return False


def _evictions(files: "list[tuple[float, int, Path]]", *, needed: bool) -> Iterator[int]:
    """Evict a file at each step and yield its size in bytes, until the rest is in use.

    The least recently used go first. For a needed shard, those that were fetched ahead follow,
    the last one fetched first, because it is needed last.
    """
    kept = []
    for file in files:
        if _evict(file[2]):
            yield file[1]
        else:
            kept.append(file)
    for _, size, path in reversed(kept if needed else []):
        if _evict(path, fetched_ahead=True):
            yield size


def _evict(path: Path, *, fetched_ahead: bool = False) -> bool:
    """Remove a file unless it is in use; return whether it is gone.

    A file that was fetched ahead of its use is only removed with `fetched_ahead`.
    """
    try:
        descriptor = _open(path, os.O_RDWR)
    except FileNotFoundError:  # removed since the listing: its fetch failed, or it was damaged
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_range_locked(descriptor) and not fetched_ahead:
            return False
        path.unlink(missing_ok=True)
        os.ftruncate(descriptor, 0)  # frees the blocks though the prefetcher has the file open
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)


def _lock_range(descriptor: int, kind: int) -> None:
    """Lock a whole file by its open file description: F_RDLCK or F_UNLCK."""
    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, 0, 0, 0))


def _is_range_locked(descriptor: int) -> bool:
    """Whether another open file description holds a lock of `_lock_range`."""
    wanted = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    found = _FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, wanted))
    return bool(found[0] != fcntl.F_UNLCK)


def _state(descriptor: int) -> tuple[int, int, int]:
    found = os.fstat(descriptor)
    return found.st_ino, found.st_mtime_ns, found.st_size


def _holds(descriptor: int, shard: ShardInfo) -> bool:
    """Whether a file has the size and CRC32C of `shard`."""
    if os.fstat(descriptor).st_size != shard.bytes:
        return False
    crc = offset = 0
    while block := os.pread(descriptor, _BLOCK_BYTES, offset):
        crc = extend_crc32c(crc, block)
        offset += len(block)
    return crc == shard.crc32c
