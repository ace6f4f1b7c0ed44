"""Shards on remote storage, brought to the local cache ahead of their use.

A `ShardPrefetcher` knows the order in which its reader will ask for shards. It fetches them in
that order, a few at once and each in several ranges, as far ahead as the cache has room for and at
most `MAX_PREFETCHED` shards. A shard that its reader asks for is fetched in any case: a cache that
is too small slows reading but never stops it. A shard is pinned in the cache from the moment that it
is there until its reader has come to its end.
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
from tenfold.data.runtime.threads import DaemonExecutor, once
from tenfold.data.storage.folder import GCS_SCHEMES, Folder, is_url
from tenfold.data.storage.open_folder import open_folder
from tenfold.data.storage.retry import with_retries
from tenfold.data.storage.shard_cache import (
    OFF,
    Cache,
    CacheOptions,
    DamagedFetch,
    Pin,
    default_cache_folder,
)

# Shards that wait for their reader, and how many are fetched at once, by a process.
MAX_PREFETCHED: Final = 16
CONCURRENT_FETCHES: Final = 4
# Larger ones are fetched in ranges of this size, so many at once over all shards.
RANGE_BYTES: Final = 32 << 20
CONCURRENT_RANGES: Final = 8


# What could not be fetched: TensorFlow makes an error of its own of what a pipeline raises.
_failures: list[JobError | UserError] = []


def prefetch_failure() -> JobError | UserError | None:
    """Returns why a shard could not be fetched in this process, None where all could."""
    return _failures[0] if _failures else None


@contextlib.contextmanager
def prefetch_failures() -> Iterator[None]:
    """Raises `prefetch_failure` in place of what a pipeline has made of it."""
    _failures.clear()  # those of earlier pipelines
    try:
        yield
    except Exception as error:
        failure = prefetch_failure()
        if failure is None or failure is error:
            raise
        raise failure from None


def needs_prefetch(folder: str, options: CacheOptions) -> bool:
    """Says whether the shards of `folder` are to be read through the cache.

    Raises:
      UserError: they are not, but TensorFlow cannot read them where they are.
    """
    if not is_url(folder):
        return False
    if options.mode == OFF and not folder.startswith(GCS_SCHEMES):
        raise UserError(
            f"{folder}: TensorFlow reads from local disks and gs:// only; without --cache=off "
            "the shards are fetched to one"
        )
    return options.mode != OFF


class ShardPrefetcher:
    """Brings shards to the cache; `shards` has them by path, `plan` names paths in the order
    of their use. Nothing is fetched before the first `open`.
    """

    def __init__(
        self, shards: Mapping[str, ShardInfo], plan: Iterator[str], options: CacheOptions
    ) -> None:
        self._shards = shards
        self._plan = plan
        self._options = options
        self._planning = threading.Lock()
        self._lock = threading.Lock()
        self._ahead: dict[str, deque[Future[Pin | None]]] = defaultdict(deque)
        self._no_room: deque[str] = deque()
        self._full = False
        self._overtaken: Counter[str] = Counter()
        self._in_use: dict[str, list[Pin]] = defaultdict(list)

    def open(self, path: str) -> str:
        """Returns where a shard lies on the local disk, once it is there; another path as it is.

        Raises:
          JobError, UserError: it could not be fetched; `prefetch_failure` returns the same.
        """
        if path not in self._shards:
            return path
        self._go_on()
        try:
            pin = self._take(path) or self._fetch(path, needed=True)
        except (JobError, UserError) as error:
            _failures.append(error)
            raise
        assert pin is not None, "what is needed is fetched"
        with self._lock:
            self._in_use[path].append(pin)
        self._go_on()
        return str(pin.path)

    def close(self, path: str) -> None:
        """Says that a reader has come to the end of a shard that it opened."""
        with self._lock:
            pins = self._in_use[path]
            pin = pins.pop() if pins else None
        if pin is not None:
            pin.close()
            self._go_on()

    def _go_on(self) -> None:
        with self._lock:
            self._full = False
        _workers().submit(self._fetch_ahead)

    def _take(self, path: str) -> Pin | None:
        """Returns the shard if it has been, or is being, brought here ahead of its use."""
        with self._lock:
            waiting = self._ahead[path]
            if not waiting:
                self._overtaken[path] += 1  # it was asked for before its turn in the plan
                return None
            coming = waiting.popleft()
        return coming.result()

    def _fetch_ahead(self) -> None:
        """Begins to fetch what comes next; each that is there begins the one after it."""
        with self._planning:
            begun = self._begin_next()
        if begun is None:
            return
        path, coming = begun
        _workers().submit(self._fetch_ahead)
        try:
            pin = self._fetch(path, needed=False)
        except BaseException as error:  # noqa: BLE001 - raised where the shard is asked for
            coming.set_exception(error)
            return
        if pin is None:
            self._put_back(path, coming)
        coming.set_result(pin)

    def _begin_next(self) -> "tuple[str, Future[Pin | None]] | None":
        """Returns the path that is next in the plan, and where its reader waits for it; None
        where enough is under way.
        """
        while True:
            with self._lock:
                if self._full or sum(map(len, self._ahead.values())) >= MAX_PREFETCHED:
                    return None
                path = self._no_room.popleft() if self._no_room else None
            path = path or next(self._plan, None)
            if path is None:
                return None
            with self._lock:  # its reader comes before this, or finds what is begun here
                if not self._overtaken[path]:
                    coming: Future[Pin | None] = Future()
                    self._ahead[path].append(coming)
                    return path, coming
                self._overtaken[path] -= 1

    def _put_back(self, path: str, coming: "Future[Pin | None]") -> None:
        """The cache had no room: it is tried again when a shard is opened or closed."""
        with self._lock, contextlib.suppress(ValueError):  # no longer there: its reader fetches it
            self._ahead[path].remove(coming)
            self._no_room.append(path)
            self._full = True

    def _fetch(self, path: str, *, needed: bool) -> Pin | None:
        shard, cache = self._shards[path], open_cache(self._options)
        folder, _, name = path.rpartition("/")
        source = open_folder(folder)
        copy = partial(_copy, source, name, shard.bytes)

        def once() -> Pin | None:
            try:
                return cache.obtain(shard, copy, needed=needed)
            except DamagedFetch:
                _check_stored(source, name, shard)
                raise

        return with_retries(once, what=path)


def _check_stored(source: Folder, name: str, shard: ShardInfo) -> None:
    """Checks that what stands in the storage is the shard: then the damage was on the way.

    Raises:
      JobError: it is not; no retry would help.
    """
    stored = source.entries().get(name)
    if stored and stored.crc32c not in (None, shard.crc32c):
        raise JobError(
            f"{source.path}/{name} is not what the manifest says (CRC32C): run 'tenfold verify' "
            "to see all, then write the shard again"
        )


def _copy(source: Folder, name: str, num_bytes: int, descriptor: int) -> int:
    """Writes a remote file to a local one, several ranges at once; returns its CRC32C."""

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
    """Returns this process's cache.

    Raises:
      UserError: its folder cannot be made or written to.
    """
    folder = (
        Path(options.folder).expanduser().absolute() if options.folder else default_cache_folder()
    )
    return Cache(folder, options.limit_bytes)


@once
def _workers() -> DaemonExecutor:
    return DaemonExecutor(CONCURRENT_FETCHES, "staging")


@once
def _range_workers() -> DaemonExecutor:
    return DaemonExecutor(CONCURRENT_RANGES, "ranges")
