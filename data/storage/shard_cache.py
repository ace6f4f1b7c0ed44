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

A needed shard that finds no room beside the shards in use is held in memory until it has been
read. It never waits for a shard in use, because that could last for ever: a reader interleaves its
shards in a fixed order and the workers of a job wait for one another at every step, so the readers
that could give shards back may themselves wait for this one.
"""

import contextlib
import fcntl
import logging
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from tenfold.data.errors import JobError, UserError
from tenfold.data.format.manifest import ShardInfo
from tenfold.data.storage.cache_options import DEFAULT_CACHE_BYTES
from tenfold.data.storage.cached_file import (
    DISK_FULL,
    REMEDY,
    Pin,
    allocate,
    available_memory,
    evictions,
    filling,
    first_damage,
    holds,
    memory_pin,
    open_file,
    state_of,
)
from tenfold.data.storage.local_folder import make_private_folder, user_cache_folder
from tenfold.data.storage.retry import TransientError
from tenfold.data.units import format_size

_SUFFIX: Final = ".tfrecord"
_PART: Final = ".part"
# A needed shard waits so long for shards that are being filled, and polls so often.
_WAIT_S: Final = 30.0
_ROOM_POLL_S: Final = 0.05
# Polls without a file that is being filled before it gives up: a shard that was fetched ahead can
# be evicted a moment after it is whole.
_IDLE_POLLS: Final = 2

_log = logging.getLogger(__name__)


def default_cache_folder() -> Path:
    """Return ``$XDG_CACHE_HOME/tenfold/shards``, by default ``~/.cache/tenfold/shards``."""
    return user_cache_folder("shards")


class DamagedFetch(TransientError):
    """A fetched shard has the wrong size or CRC32C.

    Attributes:
      content: The size in bytes and the CRC32C that were fetched.
      record: The first damaged record, with its index and offset; "" if all are sound.
    """

    def __init__(self, content: tuple[int, int], record: str) -> None:
        super().__init__(
            f"the fetched shard is not as it was written (CRC32C{f'; {record}' if record else ''})"
        )
        self.content = content
        self.record = record


class _DiskFull(Exception):
    """The file system took fewer bytes than it had reserved."""


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
        self._warned = False
        try:
            make_private_folder(folder, what="cache_dir", remedy=REMEDY)
            with self._locked():
                pass
        except OSError as error:
            raise UserError(
                f"cache_dir '{folder}' cannot be written to ({error.strerror}): {REMEDY}"
            ) from error

    def path_of(self, shard: ShardInfo) -> Path:
        """Return the path of a shard in the cache, whether or not it is there."""
        name = f"{shard.crc32c:08x}-{shard.fingerprint:016x}-{shard.bytes}{_SUFFIX}"
        return self.folder / name

    def pin(self, shard: ShardInfo) -> Pin | None:
        """Return a cached shard, marked as just used; None if it is missing or damaged."""
        path = self.path_of(shard)
        try:
            descriptor = open_file(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        pin = Pin(path, descriptor, shard.bytes)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        found = os.fstat(descriptor)
        if not found.st_nlink:  # evicted between open and flock
            return None
        state = (found.st_ino, found.st_mtime_ns, found.st_size)
        if state not in self._checked:
            if not holds(descriptor, shard):
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
          needed: What to do if the shards in use leave no room: exceed the limit, on a full disk
            hold the shard in memory (True), or return None (False).

        Raises:
          DamagedFetch: the fetched bytes have the wrong size or CRC32C.
          JobError: neither the disk nor memory has room for a needed shard.
        """
        path = self.path_of(shard)
        part = self.folder / f".{path.name}{_PART}"
        while True:
            pin = self.pin(shard)
            if pin is not None:
                return pin
            with filling(part) as descriptor:
                if path.exists():  # another process fetched it while this one waited
                    continue
                with contextlib.suppress(_DiskFull):
                    if self._find_room(descriptor, part, shard.bytes, needed=needed):
                        _fill(descriptor, shard, fetch)
                        return self._publish(descriptor, part, path, shard)
            return self._in_memory(shard, fetch) if needed else None

    def _publish(self, descriptor: int, part: Path, path: Path, shard: ShardInfo) -> Pin:
        """Rename a filled file, and pin it before anybody can evict it."""
        self._checked.add(state_of(descriptor))
        # Under the lock, so that `_missing` counts the file exactly once.
        with self._locked():
            os.rename(part, path)
            # The duplicate shares the lock of `filling`, which becomes that of a pin.
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            return Pin(path, os.dup(descriptor), shard.bytes)

    def _in_memory(self, shard: ShardInfo, fetch: Callable[[int], int]) -> Pin:
        """Return a shard that is held in memory until it is closed.

        Raises:
          JobError: memory has no room for it either.
        """
        what = f"cache_dir '{self.folder}' has no room for a shard of {format_size(shard.bytes)}"
        left = available_memory()
        if shard.bytes > left / 2:
            raise JobError(f"{what}, nor has memory ({format_size(left)} are left): {REMEDY}")
        if not self._warned:
            self._warned = True
            _log.warning("%s beside the shards in use: reading such shards from memory; with a "
                         "larger disk they need be fetched only once", what)  # fmt: skip
        pin = memory_pin(shard.name, shard.bytes)
        try:
            _fill(pin.descriptor, shard, fetch)
        except _DiskFull as error:
            raise JobError(f"{what}: {error.__cause__}: {REMEDY}") from error
        return pin

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

    def _find_room(self, descriptor: int, part: Path, num_bytes: int, *, needed: bool) -> bool:
        """Reserve room for the file `part`; return False if there is none.

        A needed shard comes before all that are fetched ahead, and after those that were needed
        earlier. It waits for files that are being filled: once they are whole, those that were
        fetched ahead can be evicted. No thread waits for room while it fills a file, so the wait
        ends; its limit is for slow networks.
        """
        if not needed:  # while a reader waits, it would take the room that the reader waits for
            return not self._queue and self._reserve(descriptor, part, num_bytes, needed=False)
        turn, until, idle = object(), None, 0
        self._queue.append(turn)
        try:
            while idle < _IDLE_POLLS and (until is None or time.monotonic() < until):
                if self._queue[0] is turn:
                    if self._reserve(descriptor, part, num_bytes, needed=True):
                        return True
                    until = until or time.monotonic() + _WAIT_S
                    idle = 0 if self._is_filling(part) else idle + 1
                time.sleep(_ROOM_POLL_S)
            return False
        finally:
            self._queue.remove(turn)

    def _is_filling(self, part: Path) -> bool:
        """Whether a file other than `part` is being filled; those that wait for room are empty."""
        with self._locked():
            files = self._files()
        return any(size and path.suffix == _PART and path != part for _, size, path in files)

    def _reserve(self, descriptor: int, part: Path, num_bytes: int, *, needed: bool) -> bool:
        """Make room for the file `part` and give it all its blocks; return False for no room."""
        with self._locked():
            os.ftruncate(descriptor, 0)  # drop what a process that died has left
            files = sorted(file for file in self._files() if file[2] != part)
            evicted = evictions(files, needed=needed)
            missing = self._missing(num_bytes, files)
            while missing > 0 and (size := next(evicted, None)) is not None:
                missing -= size
            if missing > 0 and not needed:
                return False
            while not allocate(descriptor, num_bytes):
                if next(evicted, None) is None:
                    return False
            return True

    def _missing(self, num_bytes: int, files: "list[tuple[float, int, Path]]") -> int:
        """Return the bytes to evict until `num_bytes` more are within the limit and the disk."""
        used = sum(size for _, size, _ in files)
        free = shutil.disk_usage(self.folder).free
        return max(used + num_bytes - self.limit_bytes, num_bytes - free)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = open_file(self.folder / ".lock", os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _fill(descriptor: int, shard: ShardInfo, fetch: Callable[[int], int]) -> None:
    """Fetch a shard into an open file, and check it.

    Raises:
      _DiskFull: the disk took less than it had reserved.
      DamagedFetch: the bytes have the wrong size or CRC32C.
    """
    try:
        crc = fetch(descriptor)
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        raise _DiskFull from error
    content = (os.fstat(descriptor).st_size, crc)
    if content != (shard.bytes, shard.crc32c):
        raise DamagedFetch(content, first_damage(descriptor))
