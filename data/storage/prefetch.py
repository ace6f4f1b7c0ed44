"""Remote shards, fetched to the local cache ahead of their use.

A `ShardPrefetcher` knows the order in which its reader will open shards. It fetches them in that
order, a few in parallel and each in several ranges, as far ahead as the cache has room and at most
`MAX_PREFETCHED` shards. A shard that the reader opens is fetched in any case, into memory where
the disk has no room: a cache that is too small slows reading but never stops it. A shard is pinned
in the cache while its reader has it open. One that waits for its reader is evicted only for a
shard that a reader needs earlier, and then fetched again.
"""

import contextlib
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, wait
from functools import lru_cache, partial
from pathlib import Path
from typing import Final

from tenfold.data.errors import JobError, UserError
from tenfold.data.format.manifest import ShardInfo
from tenfold.data.format.tfrecord import joined_crc32c
from tenfold.data.runtime.threads import DaemonExecutor, build_once
from tenfold.data.storage.cache_options import OFF, CacheOptions
from tenfold.data.storage.folder import GCS_SCHEMES, Folder, is_url
from tenfold.data.storage.open_folder import open_folder
from tenfold.data.storage.retry import with_retries
from tenfold.data.storage.shard_cache import Cache, DamagedFetch, Pin, default_cache_folder

# Per process: shards that wait for their reader, and shards that are fetched in parallel.
MAX_PREFETCHED: Final = 16
CONCURRENT_FETCHES: Final = 4
# Larger shards are fetched in ranges of this size; so many ranges in parallel over all shards.
RANGE_BYTES: Final = 32 << 20
CONCURRENT_RANGES: Final = 8


def needs_prefetch(folder: str, options: CacheOptions) -> bool:
    """Whether the shards of `folder` are read through the cache.

    Raises:
      UserError: the cache is off, but TensorFlow cannot read the folder in place.
    """
    if not is_url(folder):
        return False
    if options.mode == OFF and not folder.startswith(GCS_SCHEMES):
        raise UserError(
            f"{folder}: TensorFlow reads from local disks and gs:// only; without --cache=off "
            "the shards are fetched to a local cache"
        )
    return options.mode != OFF


class ShardPrefetcher:
    """Fetches shards to the cache; the first `open` begins.

    The reader's threads call `open` and `close`; worker threads of the process run
    `_fetch_ahead`, each of which submits the next one when it has found a shard to fetch.
    `_planning` is held by the worker that takes the next shard from the plan, `_lock` for every
    access to the other state; `_planning` is taken first.

    Args:
      shards: the shards by path.
      plan: their paths in the order of use; a path may come again.
      options: the cache's folder and limit.
    """

    def __init__(
        self, shards: Mapping[str, ShardInfo], plan: Iterator[str], options: CacheOptions
    ) -> None:
        self._shards = shards
        self._plan = plan
        self._options = options
        self._planning = threading.Lock()
        self._lock = threading.Lock()
        # Fetches that were begun ahead of their use; a result of None found no room.
        self._prefetched: dict[str, deque[Future[Pin | None]]] = defaultdict(deque)
        # Shards that the cache had no room for; `_full` pauses until a shard is opened or closed.
        self._postponed: deque[str] = deque()
        self._full = False
        # Times that a shard was opened before its turn in the plan, which then skips it.
        self._opened_early: Counter[str] = Counter()
        self._in_use: dict[str, list[Pin]] = defaultdict(list)

    def open(self, path: str) -> str:
        """Return the local path of a shard, once it is fetched; an unknown path as it is.

        Raises:
          JobError, UserError: it cannot be fetched.
        """
        if path not in self._shards:
            return path
        self._resume()
        pin = self._take_prefetched(path)
        if pin is None or not pin.reclaim():
            pin = self._fetch(path, needed=True)
        assert pin is not None, "a needed shard is fetched even if the cache is full"
        with self._lock:
            self._in_use[path].append(pin)
        self._resume()
        return str(pin.path)

    def close(self, path: str) -> None:
        """Unpin a shard that a reader opened and has read to its end."""
        with self._lock:
            pins = self._in_use[path]
            pin = pins.pop() if pins else None
        if pin is not None:
            pin.close()
            self._resume()

    def _resume(self) -> None:
        """Fetch ahead again: opening and closing shards makes room."""
        with self._lock:
            self._full = False
        _workers().submit(self._fetch_ahead)

    def _take_prefetched(self, path: str) -> Pin | None:
        """Return the shard if it is, or is being, fetched ahead; wait for it if need be."""
        with self._lock:
            fetches = self._prefetched[path]
            if not fetches:
                self._opened_early[path] += 1
                return None
            fetch = fetches.popleft()
        return fetch.result()

    def _fetch_ahead(self) -> None:
        """Fetch the next shard of the plan, after letting another thread fetch the one after."""
        with self._planning:
            begun = self._begin_next()
        if begun is None:
            return
        path, fetch = begun
        _workers().submit(self._fetch_ahead)
        try:
            pin = self._fetch(path, needed=False)
        except BaseException as error:  # noqa: BLE001 - raised where the shard is opened
            fetch.set_exception(error)
            return
        if pin is None:
            self._postpone(path, fetch)
        else:
            pin.yield_to_needed()
        fetch.set_result(pin)

    def _begin_next(self) -> "tuple[str, Future[Pin | None]] | None":
        """Return the next path to fetch and the future that its reader waits for.

        None where enough shards are under way, or the plan has ended.
        """
        while True:
            with self._lock:
                if self._full or sum(map(len, self._prefetched.values())) >= MAX_PREFETCHED:
                    return None
                path = self._postponed.popleft() if self._postponed else None
            path = path or next(self._plan, None)
            if path is None:
                return None
            # The reader takes the same lock: it either came before and is counted as early, or
            # finds the future.
            with self._lock:
                if not self._opened_early[path]:
                    fetch: Future[Pin | None] = Future()
                    self._prefetched[path].append(fetch)
                    return path, fetch
                self._opened_early[path] -= 1

    def _postpone(self, path: str, fetch: "Future[Pin | None]") -> None:
        """Try again later; if the reader has taken the future already, it fetches itself."""
        with self._lock, contextlib.suppress(ValueError):
            self._prefetched[path].remove(fetch)
            self._postponed.append(path)
            self._full = True

    def _fetch(self, path: str, *, needed: bool) -> Pin | None:
        shard, cache = self._shards[path], open_cache(self._options)
        folder, _, name = path.rpartition("/")
        source = open_folder(folder)
        copy = partial(_copy, source, name, shard.bytes)
        fetched: set[tuple[int, int]] = set()

        def once() -> Pin | None:
            try:
                return cache.obtain(shard, copy, needed=needed)
            except DamagedFetch as damage:
                if _is_stored(source, name, shard, is_repeated=damage.content in fetched):
                    raise _damaged(path, damage) from damage
                fetched.add(damage.content)
                raise

        return with_retries(once, what=path)


def _is_stored(source: Folder, name: str, shard: ShardInfo, *, is_repeated: bool) -> bool:
    """Whether the storage holds the wrong bytes, so that no retry helps.

    Storage that keeps no checksum does if it sent the same bytes before.
    """
    stored = source.entry(name)
    if stored is None or stored.crc32c is None:
        return is_repeated
    return stored.crc32c != shard.crc32c


def _damaged(path: str, damage: DamagedFetch) -> JobError:
    record = f" {damage.record}; the shard" if damage.record else ""
    return JobError(
        f"{path}{record} is not what the manifest says (CRC32C): run 'tenfold verify' to see "
        "all, then write the shard again"
    )


def _copy(source: Folder, name: str, num_bytes: int, descriptor: int) -> int:
    """Copy a remote file to a local descriptor, ranges in parallel; return its CRC32C."""

    def copy_range(offset: int) -> int:
        return source.fetch_range(name, offset, min(RANGE_BYTES, num_bytes - offset), descriptor)

    offsets = range(0, num_bytes, RANGE_BYTES)
    copies = [_range_workers().submit(partial(copy_range, offset)) for offset in offsets]
    wait(copies)
    crc = 0
    try:
        for offset, copy in zip(offsets, copies, strict=True):
            crc = joined_crc32c(crc, copy.result(), min(RANGE_BYTES, num_bytes - offset))
    except FileNotFoundError as error:
        raise JobError(f"{source.path}/{name} is missing: 'tenfold verify' says more") from error
    return crc


@lru_cache(maxsize=8)
def open_cache(options: CacheOptions) -> Cache:
    """Return the cache of this process.

    Raises:
      UserError: its folder cannot be created or written to.
    """
    folder = (
        Path(options.folder).expanduser().absolute() if options.folder else default_cache_folder()
    )
    return Cache(folder, options.limit_bytes)


@build_once
def _workers() -> DaemonExecutor:
    return DaemonExecutor(CONCURRENT_FETCHES, "prefetch")


@build_once
def _range_workers() -> DaemonExecutor:
    return DaemonExecutor(CONCURRENT_RANGES, "ranges")
