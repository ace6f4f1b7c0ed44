"""A cache of shards on a local disk, shared by all processes of a host.

The name of a cached file consists of its CRC32C, the sum of its records' fingerprints and its
size. So its expected content is known from the name alone, and a data set that was rewritten
never meets files of its old version. A file appears by rename once its size and CRC32C were
checked; each process checks it again before its first use.

Locks are those of flock(2), which the kernel releases when a process ends:

    KEY.tfrecord   shared: in use, not to be evicted; exclusive: being evicted
    .KEY.part      exclusive: being filled; unlocked: left by a process that died
    .lock          exclusive: room is being made, or a complete file is being renamed
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
from tenfold.data.storage.local_folder import make_private_folder, user_cache_folder
from tenfold.data.storage.retry import TransientError
from tenfold.data.units import format_size

AUTO: Final = "auto"
OFF: Final = "off"
DEFAULT_CACHE_BYTES: Final = 50 * 10**9

_SUFFIX: Final = ".tfrecord"
_PART: Final = ".part"
# Block size of checksums: small enough to stay in the processor's cache.
_BLOCK_BYTES: Final = 1 << 18
_POLL_S: Final = 0.02
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
    """A cached shard in use: it is not evicted before `close` or the end of the process."""

    def __init__(self, path: Path, descriptor: int, num_bytes: int) -> None:
        self.path = path
        self.num_bytes = num_bytes
        self._descriptor = descriptor

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
        shard; others wait for it.

        Args:
          shard: The shard.
          fetch: Writes the shard to an open file descriptor and returns the CRC32C of the
            bytes written.
          needed: What to do if the shards in use leave no room: exceed the limit (True), or
            return None (False).

        Raises:
          DamagedFetch: the fetched bytes have the wrong size or CRC32C.
          JobError: the disk is full.
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
                if not self._reserve(descriptor, part, shard.bytes, needed=needed):
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
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
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

    def _reserve(self, descriptor: int, part: Path, num_bytes: int, *, needed: bool) -> bool:
        """Make room for the file `part` and give it its final size; return False for no room."""
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
        """Evict shards until `num_bytes` more fit; return the bytes still missing."""
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


def _evict(path: Path) -> bool:
    """Remove a file unless it is in use; return whether it is gone."""
    try:
        descriptor = _open(path, os.O_RDONLY)
    except FileNotFoundError:  # removed since the listing: its fetch failed, or it was damaged
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
    """Whether a file has the size and CRC32C of `shard`."""
    if os.fstat(descriptor).st_size != shard.bytes:
        return False
    crc = offset = 0
    while block := os.pread(descriptor, _BLOCK_BYTES, offset):
        crc = extend_crc32c(crc, block)
        offset += len(block)
    return crc == shard.crc32c
