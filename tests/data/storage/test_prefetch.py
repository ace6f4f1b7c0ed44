"""A process that ends while shards are still being brought to it, and why some could not be."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tenfold.data.errors import JobError
from tenfold.data.storage import prefetch as staging

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
from tenfold.data.storage.shard_cache import CacheOptions
from tenfold.data.storage.prefetch import ShardPrefetcher

def slowly(self, path, open=ShardPrefetcher.open):
    opened.append(path)
    time.sleep(0.05)
    return open(self, path)

ShardPrefetcher.open = slowly
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


def test_only_what_failed_meanwhile_is_told_as_the_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "_failures", [JobError("an earlier pipeline's")])

    def fail(*meanwhile: JobError) -> None:
        with staging.prefetch_failures():
            staging._failures.extend(meanwhile)
            raise RuntimeError("what TensorFlow makes of it")

    with pytest.raises(RuntimeError, match="what TensorFlow makes of it"):
        fail()
    with pytest.raises(JobError, match="no such bucket"):
        fail(JobError("no such bucket"))
