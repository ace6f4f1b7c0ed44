"""The shard cache: shared by processes, bounded, and checked."""

import errno
import multiprocessing
import os
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path
from typing import Any

import pytest

from tenfold.data.errors import JobError, UserError
from tenfold.data.format.manifest import ShardInfo
from tenfold.data.format.tfrecord import crc32c
from tenfold.data.storage.cache_options import CacheOptions
from tenfold.data.storage.retry import TransientError
from tenfold.data.storage.shard_cache import Cache, Pin, default_cache_folder


def _data(number: int, size: int = 1000) -> bytes:
    return random.Random(number).randbytes(size)


def _info(number: int, size: int = 1000) -> ShardInfo:
    data = _data(number, size)
    return ShardInfo(f"train-{number:05d}-of-00099.tfrecord", 1, size, crc32c(data), number)


def _fetch(number: int, size: int = 1000) -> Callable[[int], int]:
    return lambda descriptor: _write(descriptor, _data(number, size))


def _write(descriptor: int, data: bytes) -> int:
    os.pwrite(descriptor, data, 0)
    return crc32c(data)


def _never(descriptor: int) -> int:
    raise AssertionError("the shard is in the cache already")


def _take(cache: Cache, number: int, *, needed: bool = True) -> Pin | None:
    return cache.obtain(_info(number), _fetch(number), needed=needed)


def _cached(cache: Cache) -> set[int]:
    names = {cache.path_of(_info(number)): number for number in range(40)}
    return {names[path] for path in cache.folder.glob("*.tfrecord")}


def _pinned(cache: Cache, number: int) -> Pin:
    pin = _take(cache, number)
    assert pin is not None
    return pin


def test_cached_shard_is_not_fetched_again(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "c")
    assert cache.pin(_info(1)) is None
    first = _pinned(cache, 1)
    assert first.path.read_bytes() == _data(1)
    second = cache.obtain(_info(1), _never)
    assert second is not None
    assert (second.path, second.num_bytes) == (first.path, 1000)
    assert Cache(tmp_path / "c").obtain(_info(1), _never) is not None
    assert sorted(path.name for path in cache.folder.iterdir()) == [".lock", first.path.name]
    assert cache.folder.stat().st_mode & 0o077 == 0, "other users may read it"


def test_least_recently_used_is_evicted_first(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit_bytes=3000)
    for number in (1, 2, 3):
        _pinned(cache, number).close()
        time.sleep(0.01)  # file systems have coarse timestamps
    _pinned(cache, 1).close()
    _pinned(cache, 4).close()
    assert _cached(cache) == {1, 3, 4}
    time.sleep(0.01)
    _pinned(cache, 5).close()
    assert _cached(cache) == {1, 4, 5}
    assert cache.used_bytes() == 3000


def test_pinned_shards_are_not_evicted(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit_bytes=2000)
    pins = [_pinned(cache, 1), _pinned(cache, 2)]
    assert _take(cache, 3, needed=False) is None, "the limit holds for a shard not needed yet"
    assert not list(tmp_path.glob(".*.part"))
    pins.append(_pinned(cache, 3))  # a needed shard may exceed the limit
    assert _cached(cache) == {1, 2, 3}
    assert [pin.path.read_bytes() for pin in pins] == [_data(1), _data(2), _data(3)]
    pins[1].close()
    _pinned(cache, 4)
    assert _cached(cache) == {1, 3, 4}
    for pin in pins:
        pin.close()
        pin.close()
    _pinned(cache, 5)
    assert len(_cached(cache)) == 2


@pytest.mark.timeout(120)
def test_concurrent_fetches_keep_the_limit(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 5000)
    used: list[int] = []

    def take(first: int) -> None:
        for number in range(first, first + 100):
            pin = _take(cache, number, needed=False)
            used.append(cache.used_bytes())
            if pin is not None:
                pin.close()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(take, range(0, 600, 100)))
    assert max(used) == 5000, "the cache fills up to its limit and not beyond"


def test_damaged_cached_shard_is_fetched_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = Cache(tmp_path).path_of(_info(1))
    for damage in (_data(2), _data(1)[:-1], b"", _data(1) + b"x"):
        path.write_bytes(damage)
        pin = _pinned(Cache(tmp_path), 1)
        assert pin.path.read_bytes() == _data(1)
        assert f"{path} is damaged" in caplog.text
        caplog.clear()
    # A process that has checked the file before checks it again if its size or mtime changed.
    cache = Cache(tmp_path)
    _pinned(cache, 1).close()
    path.write_bytes(_data(3))
    assert _pinned(cache, 1).path.read_bytes() == _data(1)


def test_damaged_fetch_is_never_cached(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    for fetch in (_fetch(2), _fetch(1, 999), _fetch(1, 1001), lambda descriptor: 0):
        with pytest.raises(TransientError, match="not as it was written"):
            cache.obtain(_info(1), fetch)

    def fail(descriptor: int) -> int:
        _write(descriptor, _data(1)[:500])
        raise JobError("no network")

    with pytest.raises(JobError, match="no network"):
        cache.obtain(_info(1), fail)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_racing_threads_fetch_a_shard_once(tmp_path: Path) -> None:
    cache, fetched = Cache(tmp_path, limit_bytes=10_000), []
    pins = []

    def fetch(descriptor: int) -> int:
        fetched.append(1)
        time.sleep(0.05)
        return _write(descriptor, _data(1))

    def work() -> None:
        pin = cache.obtain(_info(1), fetch)
        assert pin is not None
        assert pin.path.read_bytes() == _data(1)
        pins.append(pin)  # keeps the shard pinned until all threads are done

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(fetched), len(pins)) == (1, 8)


def _churn(folder: Path, seed: int, rounds: int, ready: Any) -> None:
    """Pin, read and release random shards; exit 0 only if every content was right."""
    cache, rng, held = Cache(folder, limit_bytes=5000), random.Random(seed), []
    for count in range(rounds):
        if count == 20:
            ready.set()
        number = rng.randrange(12)
        pin = _take(cache, number, needed=rng.random() < 0.7)
        if pin is not None:
            held.append((number, pin))
        for held_number, held_pin in held:
            assert held_pin.path.read_bytes() == _data(held_number)
        if len(held) > rng.randrange(4):
            held.pop(rng.randrange(len(held)))[1].close()
    os._exit(0)


@pytest.mark.timeout(240)
def test_processes_share_the_cache(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = [context.Event() for _ in range(5)]
    churns = [
        context.Process(target=_churn, args=(tmp_path, seed, 300, ready[seed]))
        for seed in range(4)
    ]
    for churn in churns:
        churn.start()
    killed = context.Process(target=_churn, args=(tmp_path, 9, 10**9, ready[4]))
    killed.start()
    assert all(event.wait(120) for event in ready)
    killed.kill()
    for churn in (*churns, killed):
        churn.join()
    assert [churn.exitcode for churn in churns] == [0] * 4
    assert killed.exitcode == -9
    cache = Cache(tmp_path, limit_bytes=5000)
    # Shards that the killed process had pinned or was filling can be evicted.
    for number in range(20, 30):
        _pinned(cache, number).close()
    assert cache.used_bytes() <= 5000
    assert not list(tmp_path.glob(".*.part"))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_raises_job_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    cache = Cache(tmp_path)

    def fetch(descriptor: int) -> int:
        raise OSError(number, os.strerror(number))

    assert cache.obtain(_info(1), fetch, needed=False) is None
    with pytest.raises(JobError, match=r"no room for a shard of 1 KB: .*: give another --cache"):
        cache.obtain(_info(1), fetch)
    import tenfold.data.storage.shard_cache as module

    def full(descriptor: int, offset: int, length: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", full)
    assert cache.obtain(_info(1), _never, needed=False) is None
    assert _pinned(cache, 1).path.read_bytes() == _data(1), "it is in memory"
    monkeypatch.setattr(module, "available_memory", lambda: 1500)
    message = r"no room for a shard of 1 KB, nor has memory \(1.5 KB are left\): give another"
    with pytest.raises(JobError, match=message):
        cache.obtain(_info(1), _never)


@pytest.fixture
def small_disk(make_small_disk: Callable[[int], Path]) -> Path:
    """A file system that holds four shards of 240 KB."""
    return make_small_disk(1_000_000)


def _take_large(cache: Cache, number: int, *, needed: bool = True) -> Pin | None:
    return cache.obtain(_info(number, 240_000), _fetch(number, 240_000), needed=needed)


@pytest.mark.timeout(120)
def test_small_disk_goes_round_among_threads(small_disk: Path) -> None:
    cache = Cache(small_disk)

    def take(first: int) -> None:
        for number in range(first, first + 10):
            pin = _take_large(cache, number)
            assert pin is not None
            assert pin.path.read_bytes() == _data(number, 240_000)
            pin.close()
            ahead = _take_large(cache, number + 1, needed=False)
            if ahead is not None:
                ahead.yield_to_needed()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(take, range(0, 600, 100)))


@pytest.mark.timeout(150)
def test_needed_shard_evicts_fetched_ahead_and_waits(small_disk: Path) -> None:
    cache = Cache(small_disk)
    pins = [_take_large(cache, number) for number in range(4)]
    for pin in pins[1:]:
        assert pin is not None
        pin.yield_to_needed()
    assert _take_large(cache, 5, needed=False) is None, "it would displace another fetched ahead"
    more = [_take_large(cache, number) for number in (5, 6, 7)]
    assert pins[3] is not None
    assert not pins[3].reclaim()
    assert all(more)


@pytest.mark.timeout(150)
def test_needed_shard_waits_for_those_being_fetched(small_disk: Path) -> None:
    cache, go_on, pins = Cache(small_disk), threading.Event(), []

    def fetch_ahead(number: int) -> None:
        def fetch(descriptor: int) -> int:
            assert go_on.wait(120)
            return _fetch(number, 240_000)(descriptor)

        pin = cache.obtain(_info(number, 240_000), fetch, needed=False)
        assert pin is not None
        pin.yield_to_needed()
        pins.append(pin)

    with ThreadPoolExecutor(5) as pool:
        ahead = [pool.submit(fetch_ahead, number) for number in range(4)]
        while cache.used_bytes() < 4 * 240_000:
            time.sleep(0.01)
        needed = pool.submit(_take_large, cache, 5)
        with pytest.raises(FutureTimeout):
            needed.result(timeout=0.5)
        go_on.set()
        pin = needed.result()
        assert [future.result() for future in ahead] == [None] * 4
    assert pin is not None
    assert pin.path.parent == small_disk
    assert [pin.reclaim() for pin in pins].count(False) == 1


@pytest.mark.timeout(150)
def test_shard_without_room_is_held_in_memory(
    small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = Cache(small_disk)
    pins = [_take_large(cache, number) for number in range(7)]
    contents = [pin and (pin.path.parent == small_disk, pin.path.read_bytes()) for pin in pins]
    assert contents == [(number < 4, _data(number, 240_000)) for number in range(7)]
    assert caplog.text.count("no room for a shard of 240 KB beside the shards in use: read") == 1
    for pin in pins:
        assert pin is not None
        pin.close()
    last = _take_large(cache, 8)
    assert last is not None
    assert last.path.parent == small_disk, "the disk has room again"


@pytest.mark.parametrize("name", [".lock", ".{}.part", "{}"])
def test_planted_symlinks_are_not_followed(tmp_path: Path, name: str) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o700)
    link = folder / name.format(Cache(tmp_path / "other").path_of(_info(1)).name)
    link.symlink_to(victim)
    with pytest.raises(UserError, match=f"'{link}' is a symbolic link.*: remove it, or give ano"):
        _take(Cache(folder), 1)
    assert victim.read_bytes() == b"precious"
    link.unlink()
    link.symlink_to(tmp_path / "new")
    with pytest.raises(UserError, match="is a symbolic link"):
        _take(Cache(folder), 1)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o1777])
def test_folder_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    message = rf"cache_dir '{tmp_path}' has mode {mode:04o}: others must not .* 'chmod go-w"
    with pytest.raises(UserError, match=message):
        Cache(tmp_path)
    tmp_path.chmod(0o755)  # others may read the shards
    Cache(tmp_path)


def test_folder_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = tmp_path.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    message = rf"cache_dir '{tmp_path}' belongs to user {owner}: it must be yours .*; give another"
    with pytest.raises(UserError, match=message):
        Cache(tmp_path)


def test_invalid_cache_options_raise_user_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cache_dir '.*/file/c' cannot be written to"):
        Cache(tmp_path / "file" / "c")
    with pytest.raises(UserError, match="cache 'on' is neither auto nor off"):
        CacheOptions("on")
    with pytest.raises(UserError, match="cannot be below 0"):
        CacheOptions(limit_bytes=-1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_folder() == tmp_path / "tenfold" / "shards"
