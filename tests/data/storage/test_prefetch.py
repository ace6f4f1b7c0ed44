"""Reading through a small cache, and exiting while shards are still being fetched."""

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest

from tenfold.data.format.manifest import Feature

# Each batch opens 64 shards of one record, slowly, so that calls are under way when Python exits.
# The function registered first runs last: by then no shard may be opened any more.
PROGRAM = """
import atexit, sys, time
from pathlib import Path
opened = []
@atexit.register
def count():
    before = len(opened)
    time.sleep(0.5)
    print(len(opened) - before, "opened after the end", flush=True)

import fsspec
memory = fsspec.filesystem("memory")
for path in Path(sys.argv[1]).iterdir():
    memory.pipe(f"/bucket/{path.name}", path.read_bytes())

from tenfold.data import CacheOptions, ReadOptions, training_dataset
from tenfold.data.storage.prefetch import ShardPrefetcher

def open_slowly(self, path, open=ShardPrefetcher.open):
    opened.append(path)
    time.sleep(0.05)
    return open(self, path)

ShardPrefetcher.open = open_slowly
options = ReadOptions(threads=2, cache=CacheOptions(folder=sys.argv[2]))
iterator = iter(training_dataset("memory://bucket", global_batch_size=64, options=options))
next(iterator)
print("read", flush=True)
"""


@pytest.mark.timeout(240)
def test_process_exits_while_shards_are_fetched(
    make_id_shards: Callable[..., Path], tmp_path: Path
) -> None:
    shards = make_id_shards(64, num_shards=64, num_lanes=4)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, shards, tmp_path / "cache"],
        capture_output=True,
        text=True,
        timeout=220,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["read", "0 opened after the end"]


@pytest.mark.timeout(120)
def test_cache_disk_smaller_than_the_data_suffices(
    make_shards: Callable[..., Path], make_small_disk: Callable[[int], Path],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """Twenty shards of 260 KB, two lanes: eight shards, 2.1 MB, are read at once."""
    from tenfold.data import CacheOptions, ReadOptions, training_dataset

    noise = random.Random(0)
    examples = [{"id": index, "noise": noise.randbytes(1000)} for index in range(5000)]
    features = (Feature("id", "int64"), Feature("noise", "bytes"))
    shards = make_shards(examples, num_shards=20, num_lanes=2, features=features)
    memory = fsspec.filesystem("memory")
    for path in shards.iterdir():
        memory.pipe(f"/small/{path.name}", path.read_bytes())

    def read(place: str, cache: str = "") -> list[int]:
        options = ReadOptions(
            threads=2, cache=CacheOptions(folder=cache), shuffle_buffer_bytes=100_000
        )
        batches = training_dataset(place, global_batch_size=100, epochs=2, options=options)
        return [number for x, *_ in batches for number in x["id"].numpy()]

    expected = read(str(shards))
    assert len(set(expected)) == 5000
    for num_bytes, is_short in ((1_200_000, True), (2_000_000, True), (3_500_000, False)):
        caplog.clear()
        found = read("memory://small", str(make_small_disk(num_bytes)))
        assert found == expected
        assert ("from memory" in caplog.text) == is_short
    memory.store.clear()
