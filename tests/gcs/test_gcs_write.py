"""`tenfold write` to a bucket: complete or not at all, through faults and kills."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tenfold.data.errors import JobError
from tenfold.data.format.manifest import parse_shard_name
from tenfold.data.format.tfrecord import crc32c
from tenfold.data.writing.write_shards import Progress, WriteOptions, write_shards

TENFOLD = Path(sys.executable).with_name("tenfold")
FAULTS = ("503=0.1", "429=0.05", "cut=0.05", "flip=0.03", "shorten=0.03", "lose_answer=0.05")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A table of 6,000 records of incompressible text, 3 MB."""
    path = tmp_path / "table.csv"
    with path.open("w") as file:
        file.write("text,label\n")
        for number in range(6000):
            file.write(f"{os.urandom(250).hex()},{number % 10}\n")
    return path


def _flags(table: Path, output: str) -> list[str]:
    return [
        f"--source={table}", f"--output={output}", "--num_workers=4", "--shards_per_worker=5",
        "--min_shard_size=10kB",
    ]  # fmt: skip


def _shards(bucket: Any, prefix: str) -> dict[str, bytes]:
    """Return the bytes of all shards under `prefix`, by name."""
    names = [name.rpartition("/")[2] for name in bucket.names(f"{prefix}/")]
    return {name: bucket.read(f"{prefix}/{name}") for name in names if parse_shard_name(name)}


def _check_complete(bucket: Any, prefix: str, local: Path) -> None:
    """Compare a data set with its copy on a local disk, and with its own manifest."""
    shards = _shards(bucket, prefix)
    assert shards == {path.name: path.read_bytes() for path in local.glob("*.tfrecord")}
    manifest = json.loads(bucket.read(f"{prefix}/manifest.json"))
    assert manifest == json.loads((local / "manifest.json").read_text())
    listed = {shard["name"]: shard for split in manifest["splits"] for shard in split["shards"]}
    assert {name: f"{crc32c(data):08x}" for name, data in shards.items()} == {
        name: shard["crc32c"] for name, shard in listed.items()
    }
    assert not [name for name in bucket.names(f"{prefix}/") if ".tenfold-write" in name]


@pytest.mark.timeout(200)
def test_write_survives_faulty_network(
    bucket: Any, faulty: Callable[..., Any], tenfold: Callable[..., Any], table: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    done = tenfold("write", *_flags(table, str(tmp_path / "out")))
    assert done.status == 0, done.err
    proxy = faulty(*FAULTS)
    done = tenfold("write", *_flags(table, f"{bucket.url}/a/set"))
    assert done.status == 0, done.err
    struck = proxy.struck()
    assert sum(struck.values()) >= 10, struck
    assert {"503", "cut", "lose_answer"} <= set(struck)
    _check_complete(bucket, "a/set", tmp_path / "out")


@pytest.mark.timeout(200)
def test_write_killed_during_upload_resumes(
    bucket: Any, faulty: Callable[..., Any], tenfold: Callable[..., Any], table: Path,
    tmp_path: Path, until: Callable[..., None],
) -> None:  # fmt: skip
    local = tmp_path / "out"
    assert tenfold("write", *_flags(table, str(local))).status == 0
    flags = _flags(table, f"{bucket.url}/set")
    # The proxy holds later uploads, so that the kill interrupts uploads in progress.
    faulty("hold_later=1")
    writing = subprocess.Popen(
        [TENFOLD, "write", *flags], start_new_session=True, stderr=subprocess.DEVNULL
    )
    until(lambda: len(_shards(bucket, "set")) >= 4)
    assert writing.poll() is None
    os.killpg(writing.pid, signal.SIGKILL)
    writing.wait()
    faulty()
    left = _shards(bucket, "set")
    assert 4 <= len(left) < 20
    whole = {path.name: path.read_bytes() for path in local.glob("*.tfrecord")}
    assert left == {name: whole[name] for name in left}
    assert bucket.read("set/manifest.json") is None
    done = tenfold("verify", f"--shards={bucket.url}/set")
    assert (done.status, "there is no" in done.err) == (2, True), done.err
    generations = {item["name"]: item["generation"] for item in bucket.items("set/train-")}
    noted = len([name for name in bucket.names("set/.tenfold-write/") if "train-" in name])
    done = tenfold("write", *flags)
    assert done.status == 0, done.err
    _check_complete(bucket, "set", local)
    kept = [
        item for item in bucket.items("set/train-")
        if generations.get(item["name"]) == item["generation"]
    ]  # fmt: skip
    assert len(kept) >= noted, "a complete shard was written again"
    # A third write finds a complete data set.
    done = tenfold("write", *flags)
    assert (done.status, "nothing to do" in done.out + done.err) == (0, True), done.out + done.err


def test_uploads_overlap_with_writing(
    bucket: Any, faulty: Callable[..., Any], tenfold: Callable[..., Any], table: Path
) -> None:
    proxy = faulty("slow_upload=1")
    done = tenfold("write", *_flags(table, f"{bucket.url}/set"))
    assert done.status == 0, done.err
    # Two writing processes for each processor upload concurrently.
    assert proxy.end()["together"] >= 2


@pytest.mark.timeout(120)
def test_one_of_two_writes_wins(
    bucket: Any, start_tenfold: Any, tenfold: Callable[..., Any], table: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.csv"
    other.write_text(table.read_text().replace(",1\n", ",2\n"))
    url = f"{bucket.url}/set"
    writes = [start_tenfold("write", *_flags(source, url)) for source in (table, other)]
    errors = [write.communicate()[1] for write in writes]
    assert sorted(write.returncode for write in writes) == [0, 2], errors
    winner = 0 if writes[0].returncode == 0 else 1
    last = errors[1 - winner].splitlines()[-1]
    assert last.startswith(f"tenfold: output '{url}' "), errors
    assert "made with a different source" in last, errors
    local = tmp_path / "local"
    tenfold("write", *_flags((table, other)[winner], str(local)))
    _check_complete(bucket, "set", local)


def test_shard_of_other_write_is_not_replaced(bucket: Any, table: Path) -> None:
    names: list[str] = []

    def overtake(progress: Progress) -> None:
        if progress.records == 0:
            bucket.write(f"set/{names[-1]}", b"other content")

    url = f"{bucket.url}/set"
    with pytest.raises(JobError, match=rf"^output '{url}' has been taken over by another write"):
        write_shards(
            str(table), url, options=WriteOptions(processes=1), on_progress=overtake,
            on_plan=lambda plan: names.extend(task.name for task in plan.tasks),
        )  # fmt: skip
    assert bucket.read(f"set/{names[-1]}") == b"other content"
    assert bucket.read("set/manifest.json") is None


def test_unwritable_output_is_reported_at_once(
    bucket: Any, faulty: Callable[..., Any], tenfold: Callable[..., Any], table: Path
) -> None:
    done = tenfold("write", *_flags(table, "gs://no-such-bucket/set"))
    assert done.status == 2
    assert done.err.splitlines()[-1].startswith("tenfold: there is no bucket 'no-such-bucket'")
    faulty("403=1")
    done = tenfold("write", *_flags(table, bucket.url))
    assert done.status == 2
    assert done.err.count("\n") == 1
    assert "no Google credentials were found" in done.err


def test_verify_and_inspect_on_bucket(
    bucket: Any, faulty: Callable[..., Any], tenfold: Callable[..., Any], table: Path
) -> None:
    url = f"{bucket.url}/set"
    assert tenfold("write", *_flags(table, url)).status == 0
    proxy = faulty("503=0.1", "cut=0.05", "flip=0.05", "shorten=0.05", seed=2)
    done = tenfold("verify", f"--shards={url}")
    assert done.status == 0, done.out + done.err
    done = tenfold("inspect", f"--shards={url}")
    assert done.status == 0, done.err
    assert url in done.out
    assert sum(proxy.struck().values()) > 2
    faulty()
    name = "train-00003-of-00020.tfrecord"
    data = bytearray(bucket.read(f"set/{name}"))
    data[len(data) // 2] ^= 1
    bucket.write(f"set/{name}", bytes(data))
    done = tenfold("verify", f"--shards={url}")
    assert done.status == 1
    assert name in done.out + done.err
