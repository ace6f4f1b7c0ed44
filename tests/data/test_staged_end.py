"""A process that ends while shards are still being brought to it."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# Each batch opens 64 shards of one record, slowly: there are calls under way when Python ends.
# What is registered first is called last, when these must have come to rest.
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

from tenfold.data import worker_dataset
from tenfold.data.cache import CacheOptions
from tenfold.data.staging import Stager

def slowly(self, path, open=Stager.open):
    opened.append(path)
    time.sleep(0.05)
    return open(self, path)

Stager.open = slowly
iterator = iter(worker_dataset(
    "memory://bucket", global_batch_size=64, threads=2, cache=CacheOptions(folder=sys.argv[2])
))
next(iterator)
print("read", flush=True)
"""


@pytest.mark.timeout(240)
def test_a_process_ends_that_has_not_read_to_the_end(
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
