"""Reading shards from a bucket: cached, prefetched, and equal to reading from a local disk."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tenfold.data.errors import JobError, UserError
from tenfold.data.format.manifest import ShardInfo
from tenfold.data.format.tfrecord import crc32c
from tenfold.data.runtime.threads import build_once
from tenfold.data.storage import prefetch as staging
from tenfold.data.storage.cache_options import CacheOptions
from tenfold.data.storage.prefetch import (
    MAX_PREFETCHED,
    ShardPrefetcher,
    needs_prefetch,
    open_cache,
)
from tenfold.data.storage.shard_cache import Pin

FAULTS = ("503=0.1", "cut=0.05", "shorten=0.05", "flip=0.05")


@pytest.fixture(autouse=True)
def _new(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Reset the state that is global to a process."""
    yield
    open_cache.cache_clear()


@pytest.fixture(scope="module")
def small_shards(
    write_digits: Callable[..., None], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The digits in 24 shards to train on and as many to validate."""
    output = tmp_path_factory.mktemp("small") / "shards"
    write_digits(output, "--num_workers=2", "--worker_counts=1,2", "--min_shard_size=100")
    return output


@pytest.fixture
def remote_digits(bucket: Any, small_shards: Path) -> str:
    for path in small_shards.iterdir():
        bucket.write(f"digits/{path.name}", path.read_bytes())
    return f"{bucket.url}/digits"


@pytest.fixture
def many(bucket: Any) -> dict[str, ShardInfo]:
    """Forty shards of 1 to 40 KB by path; the larger ones span several ranges."""
    shards = {}
    for number in range(40):
        data = np.random.default_rng(number).bytes(1000 * (number + 1))
        name = f"train-{number:05d}-of-00040.tfrecord"
        bucket.write(f"many/{name}", data)
        info = ShardInfo(name, 1, len(data), crc32c(data), number)
        shards[f"{bucket.url}/many/{name}"] = info
    return shards


def _cached(options: CacheOptions) -> int:
    return len(list(Path(options.folder).glob("*.tfrecord")))


def _stager(shards: dict[str, ShardInfo], options: CacheOptions) -> ShardPrefetcher:
    return ShardPrefetcher(shards, iter(shards), options)


def test_shards_are_prefetched_in_order(
    many: dict[str, ShardInfo],
    tmp_path: Path,
    until: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(staging, "RANGE_BYTES", 7000)
    options = CacheOptions(folder=str(tmp_path))
    prefetcher, paths = _stager(many, options), list(many)
    time.sleep(0.1)
    assert _cached(options) == 0, "nothing is fetched before it is asked for"
    assert prefetcher.open("/elsewhere/x") == "/elsewhere/x"
    for number, path in enumerate(paths):
        local = prefetcher.open(path)
        assert crc32c(Path(local).read_bytes()) == many[path].crc32c
        expected = min(len(paths), number + 1 + MAX_PREFETCHED)
        until(lambda: _cached(options) >= expected)  # noqa: B023
        assert _cached(options) == expected, "it is fetched further ahead than it should be"
        prefetcher.close(path)


def test_too_small_cache_still_serves(
    many: dict[str, ShardInfo], tmp_path: Path, until: Callable[..., None]
) -> None:
    options = CacheOptions(folder=str(tmp_path), limit_bytes=60_000)
    prefetcher = _stager(many, options)
    held: list[str] = []
    for path in many:
        held.append(path)
        assert crc32c(Path(prefetcher.open(path)).read_bytes()) == many[path].crc32c
        in_use = sum(many[one].bytes for one in held)
        used = open_cache(options).used_bytes()
        assert used <= max(options.limit_bytes, in_use) + 40_000, "more than what is in use"
        if len(held) == 2:
            prefetcher.close(held.pop(0))
    for path in held:
        prefetcher.close(path)
    # Room that was given back is used: the next are brought ahead again.
    more = _stager(many, options)
    more.open(next(iter(many)))
    until(lambda: _cached(options) >= 6)


def test_shards_opened_out_of_order(
    many: dict[str, ShardInfo], tmp_path: Path, until: Callable[..., None]
) -> None:
    prefetcher = _stager(many, CacheOptions(folder=str(tmp_path)))
    backwards = list(many)[::-1]

    def read(paths: list[str]) -> None:
        for path in paths:
            assert crc32c(Path(prefetcher.open(path)).read_bytes()) == many[path].crc32c
            prefetcher.close(path)

    threads = [threading.Thread(target=read, args=(backwards[k::4],)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    until(lambda: _cached(CacheOptions(folder=str(tmp_path))) == 40)


def test_reader_and_prefetcher_race_for_a_shard(
    many: dict[str, ShardInfo],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    wait_for_background: Callable[[], None],
) -> None:
    """Whichever is first, no shard is prefetched for a reader that already has it."""
    prefetcher, path = _stager(many, CacheOptions(folder=str(tmp_path))), next(iter(many))
    chosen, lock, take = threading.Event(), prefetcher._lock, prefetcher._take_prefetched

    class Halting:
        """The lock; a background thread pauses when it has chosen the shard."""

        left = 2

        def __enter__(self) -> None:
            lock.acquire()

        def __exit__(self, *_: object) -> None:
            lock.release()
            if threading.current_thread().name.startswith("prefetch"):
                self.left -= 1
                if self.left == 0:
                    chosen.set()
                    time.sleep(0.3)

    def late_take(path: str) -> Pin | None:
        assert chosen.wait(90)
        return take(path)

    monkeypatch.setattr(prefetcher, "_lock", Halting())
    monkeypatch.setattr(prefetcher, "_take_prefetched", late_take)
    prefetcher.open(path)
    wait_for_background()
    assert not (prefetcher._opened_early[path] and prefetcher._prefetched[path])


def test_once_builds_a_single_value() -> None:
    made = []

    @build_once
    def make() -> int:
        made.append(1)
        time.sleep(0.05)  # so that all come before it is done
        return len(made)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda _: make(), range(8))) == [1] * 8


def test_changed_remote_shard_raises_job_error(
    bucket: Any, many: dict[str, ShardInfo], tmp_path: Path
) -> None:
    path = next(iter(many))
    bucket.write(f"many/{many[path].name}", b"x" * many[path].bytes)
    options = CacheOptions(folder=str(tmp_path))
    with pytest.raises(JobError, match=f"{path} record 0 .*; the shard is not what the man"):
        _stager(many, options).open(path)
    bucket.remove(f"many/{many[path].name}")
    with pytest.raises(JobError, match=f"{path} is missing"):
        _stager(many, options).open(path)
    assert not open_cache(options).path_of(many[path]).exists()


def test_only_remote_shards_need_prefetch() -> None:
    options = CacheOptions()
    assert needs_prefetch("gs://b/x", options)
    assert needs_prefetch("memory://b/x", options)
    assert not needs_prefetch("/shards", options)
    assert not needs_prefetch("gs://b/x", replace(options, mode="off"))
    with pytest.raises(UserError, match="TensorFlow reads from local disks and gs:// only"):
        needs_prefetch("memory://b/x", replace(options, mode="off"))


def _assert_fetched_once(ended: dict[str, Any], shards: int, manifests: int) -> None:
    """Check that each shard was delivered once for all workers and epochs.

    Besides, at most `manifests` manifests and one retry for each fault may have been requested.
    """
    assert not ended["failures"], ended
    delivered = {name: n for name, n in ended["delivered"].items() if name.endswith(".tfrecord")}
    assert (len(delivered), set(delivered.values())) == (shards, {1}), ended
    allowed = shards + manifests + sum(ended["struck"].values())
    assert sum(ended["media"].values()) <= allowed, ended


@pytest.mark.timeout(240)
@pytest.mark.parametrize("limit_bytes", [10**9, 1], ids=["ample", "tiny"])
def test_remote_batches_equal_local_batches(
    remote_digits: str, small_shards: Path, faulty: Callable[..., Any], tmp_path: Path,
    limit_bytes: int,
) -> None:  # fmt: skip
    from tenfold.data.reading.dataset import worker_dataset

    proxy = faulty(*FAULTS)
    options = CacheOptions(folder=str(tmp_path), limit_bytes=limit_bytes)
    for training in (True, False):
        datasets = [
            worker_dataset(
                shards, global_batch_size=64, split="train" if training else "validation",
                training=training, seed=3, epochs=3, shuffle_buffer_bytes=50_000, cache=options,
                num_workers=2, worker_index=1, image_dtype="uint8",
            )
            for shards in (str(small_shards), remote_digits)
        ]  # fmt: skip
        count = 0
        for here, there in zip(*datasets, strict=True):
            count += 1
            assert all(np.array_equal(a, b) for a, b in zip(here, there, strict=True))
        assert count == (3 * 25 if training else 3)
    ended = proxy.end()
    assert sum(ended["struck"].values()) >= 5
    if limit_bytes > 1:  # later epochs read from the disk
        _assert_fetched_once(ended, shards=24, manifests=2)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_training_survives_faulty_network(
    remote_digits: str, faulty: Callable[..., Any], tenfold: Callable[..., Any],
    read_metrics: Callable[[Path], list[dict[str, Any]]], tmp_path: Path,
) -> None:  # fmt: skip
    proxy = faulty("503=0.1", "429=0.03", "cut=0.05", "stall=0.02", "shorten=0.05", "flip=0.05")
    done = tenfold(
        "launch", f"--shards={remote_digits}", "--num_workers=2", "--epochs=3",
        f"--run_dir={tmp_path / 'run'}", f"--cache_dir={tmp_path / 'cache'}",
        "--shuffle_buffer=50kB", TENFOLD_STORAGE_STALL_S="5",
    )  # fmt: skip
    assert done.status == 0, done.err
    receipts = [
        line["receipt"] for line in read_metrics(tmp_path / "run") if line.get("kind") == "epoch"
    ]
    assert [(r["records"], r["exact"]) for r in receipts] == [(1600, True)] * 3
    ended = proxy.end()
    struck = sum(ended["struck"].values())
    assert struck >= 5, ended
    assert len(list((tmp_path / "cache").glob("*.tfrecord"))) == 48
    _assert_fetched_once(ended, shards=48, manifests=8)


@pytest.mark.timeout(240)
def test_unreachable_storage_is_named(
    remote_digits: str, faulty: Callable[..., Any], tenfold: Callable[..., Any], tmp_path: Path
) -> None:
    faulty("no_shards=1")
    done = tenfold(
        "bench", f"--shards={remote_digits}", f"--cache_dir={tmp_path}", "--seconds=0.2",
        TENFOLD_STORAGE_RETRY_S="1",
    )  # fmt: skip
    assert done.status == 1
    last = done.err.splitlines()[-1]
    assert last.startswith(f"tenfold: {remote_digits}/train-")
    assert "the server answered 503" in last
    assert "given up after" in last
    assert "Traceback" not in done.err
