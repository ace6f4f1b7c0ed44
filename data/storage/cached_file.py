"""The files of a shard cache: how they are locked, filled, pinned and evicted.

`shard_cache` describes the locks.
"""

import contextlib
import errno
import fcntl
import os
import struct
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from tenfold.data.format.manifest import ShardInfo
from tenfold.data.format.tfrecord import RecordError, extend_crc32c, read_frames
from tenfold.data.storage.local_folder import open_real_file

REMEDY: Final = "give another --cache_dir, or --cache=off"
DISK_FULL: Final = (errno.ENOSPC, errno.EDQUOT)

# Block size of checksums: small enough to stay in the processor's cache.
_BLOCK_BYTES: Final = 1 << 18
_POLL_S: Final = 0.02
# struct flock of Linux: l_type, l_whence, l_start, l_len, l_pid.
_FLOCK: Final = struct.Struct("hhqqi0q")


class Pin:
    """A shard in use: it is not evicted before `close` or the end of the process.

    Between `yield_to_needed` and `reclaim` it may be evicted, but only for a shard that a reader
    needs now, not for another that is fetched ahead.
    """

    def __init__(self, path: Path, descriptor: int, num_bytes: int) -> None:
        """Take over an open file, which `close` closes."""
        self.path = path
        self.num_bytes = num_bytes
        self.descriptor = descriptor

    def yield_to_needed(self) -> None:
        """Let the shard be evicted for shards that readers need now."""
        _lock_range(self.descriptor, fcntl.F_RDLCK)
        fcntl.flock(self.descriptor, fcntl.LOCK_UN)

    def reclaim(self) -> bool:
        """Put the shard in use again; return False if it has been evicted."""
        fcntl.flock(self.descriptor, fcntl.LOCK_SH)
        _lock_range(self.descriptor, fcntl.F_UNLCK)
        return os.fstat(self.descriptor).st_nlink > 0

    def close(self) -> None:
        """Allow the shard to be evicted."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    __del__ = close


def open_file(path: Path, flags: int) -> int:
    """Open a file of the cache, of which several processes know the name.

    Raises:
      UserError: it is a symbolic link.
    """
    return open_real_file(path, flags, mode=0o600, remedy=f", or {REMEDY}")


@contextlib.contextmanager
def filling(part: Path) -> Iterator[int]:
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
    descriptor = open_file(part, os.O_RDWR | os.O_CREAT)
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


def allocate(descriptor: int, num_bytes: int) -> bool:
    """Give an empty file its size and all its blocks; return False if the disk is full."""
    try:
        if num_bytes:
            os.posix_fallocate(descriptor, 0, num_bytes)
        return True
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        os.ftruncate(descriptor, 0)  # the blocks that it got
        return False


def evictions(files: "list[tuple[float, int, Path]]", *, needed: bool) -> Iterator[int]:
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
        descriptor = open_file(path, os.O_RDWR)
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


def state_of(descriptor: int) -> tuple[int, int, int]:
    """Return what changes when a file's content does: its inode, mtime and size."""
    found = os.fstat(descriptor)
    return found.st_ino, found.st_mtime_ns, found.st_size


def holds(descriptor: int, shard: ShardInfo) -> bool:
    """Whether a file has the size and CRC32C of `shard`."""
    if os.fstat(descriptor).st_size != shard.bytes:
        return False
    crc = offset = 0
    while block := os.pread(descriptor, _BLOCK_BYTES, offset):
        crc = extend_crc32c(crc, block)
        offset += len(block)
    return crc == shard.crc32c


def first_damage(descriptor: int) -> str:
    """Return the first damaged record of a shard's file, with its index and offset; "" if none."""

    def read(offset: int, length: int) -> bytes:
        return os.pread(descriptor, length, offset)

    try:
        for frame in read_frames(read, os.fstat(descriptor).st_size):
            frame.check()
    except RecordError as error:
        return str(error)
    return ""


# --- shards in memory ---


def memory_pin(name: str, num_bytes: int) -> Pin:
    """Return the pin of an empty file in memory, which ends with the pin and its readers."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
    return Pin(Path(f"/proc/self/fd/{descriptor}"), descriptor, num_bytes)


def available_memory() -> int:
    """Return the bytes that this process may still take, on this machine and in its container."""
    with open("/proc/meminfo", encoding="ascii") as file:
        available = int(_numbers(file)["MemAvailable:"]) * 1024
    cgroup = Path("/sys/fs/cgroup")  # a container sees its own there (version 2)
    try:
        limit = int((cgroup / "memory.max").read_text(encoding="ascii"))
        used = int((cgroup / "memory.current").read_text(encoding="ascii"))
        with open(cgroup / "memory.stat", encoding="ascii") as file:
            used -= int(_numbers(file)["inactive_file"])  # page cache
    except (OSError, ValueError):  # no such cgroup, or no limit ("max")
        return available
    return min(available, limit - used)


def _numbers(lines: Iterable[str]) -> dict[str, str]:
    """Return the second word of each line by the first."""
    return {words[0]: words[1] for words in map(str.split, lines) if len(words) > 1}
