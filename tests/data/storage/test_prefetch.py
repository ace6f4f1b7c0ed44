"""A process exits while shards are still being fetched to it."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

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
