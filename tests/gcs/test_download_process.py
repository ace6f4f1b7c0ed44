"""The second process of large downloads: the same bytes, errors and ends as with one process."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tenfold.data.errors import JobError, UserError
from tenfold.data.format.tfrecord import crc32c
from tenfold.data.storage.gcs import download_process
from tenfold.data.storage.gcs.download_process import (
    DownloadProcess,
    RangeFailure,
    fetch_in_process,
)
from tenfold.data.storage.open_folder import open_folder
from tenfold.data.storage.retry import TransientError

LENGTH = download_process.MIN_RANGE_BYTES


@pytest.fixture
def process(
    bucket: Any, monkeypatch: pytest.MonkeyPatch, until: Callable[..., None]
) -> Iterator[DownloadProcess]:
    """A download process that is ready, and that takes every range."""
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "2")
    monkeypatch.setattr("tenfold.data.storage.gcs.download_process._current", None)
    made = download_process._current_process()
    until(lambda: made._idle.qsize() == len(made._connections))
    monkeypatch.setattr(made, "_calls", iter(lambda: 0, 1))
    yield made
    made.close()
    made._process.wait(timeout=60)


def fetch(bucket: Any, target: Path, offset: int, length: int = LENGTH) -> int | None:
    descriptor = os.open(target, os.O_RDWR | os.O_CREAT)
    try:
        return fetch_in_process(f"{bucket.url}/a", "x", offset, length, descriptor)
    finally:
        os.close(descriptor)


def test_process_copies_a_range_to_its_offset(
    process: DownloadProcess, bucket: Any, tmp_path: Path
) -> None:
    data = os.urandom(2 * LENGTH + 7)
    bucket.write("a/x", data)
    for offset in (0, LENGTH, 2 * LENGTH):
        part = data[offset : offset + LENGTH]
        assert fetch(bucket, tmp_path / "copy", offset) == crc32c(part)
    assert (tmp_path / "copy").read_bytes() == data
    assert process._idle.qsize() == len(process._connections)


def test_small_ranges_and_single_cores_stay_in_one_process(
    process: DownloadProcess, bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.write("a/x", b"x")
    assert fetch(bucket, tmp_path / "copy", 0, LENGTH - 1) is None
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "1")
    assert fetch(bucket, tmp_path / "copy", 0) is None


def test_errors_of_the_process_are_raised_here(
    process: DownloadProcess, bucket: Any, tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no gs://.*/a/x"):
        fetch(bucket, tmp_path / "copy", 0)
    bucket.write("a/x", b"some bytes")
    if os.path.exists("/dev/full"):
        with pytest.raises(OSError, match="No space left on device") as caught:
            fetch(bucket, Path("/dev/full"), 0)
        assert caught.value.errno == errno.ENOSPC
    for kind in (UserError, JobError, TransientError):
        error = RangeFailure(kind.__name__, "said there").error()
        assert (type(error), str(error)) == (kind, "said there")
    assert type(RangeFailure("KeyError", "unknown here").error()) is JobError


def test_killed_process_leaves_the_download_to_the_caller(
    process: DownloadProcess, bucket: Any, tmp_path: Path
) -> None:
    data = os.urandom(LENGTH)
    bucket.write("a/x", data)
    os.kill(process.pid, signal.SIGKILL)
    process._process.wait(timeout=60)
    folder = open_folder(f"{bucket.url}/a")
    for _ in range(len(process._connections) + 1):
        with open(tmp_path / "copy", "w+b") as copy:
            assert folder.fetch_range("x", 0, LENGTH, copy.fileno()) == crc32c(data)
            assert copy.read() == data


def test_process_ends_with_its_parent(bucket: Any, until: Callable[..., None]) -> None:
    """Even where a fork of the parent lives on and has the connections open."""
    program = textwrap.dedent("""
        import os, time
        from tenfold.data.storage.gcs.download_process import DownloadProcess
        process = DownloadProcess()
        fork = os.fork()
        if fork == 0:
            time.sleep(600)
        print(process.pid, fork, flush=True)
        time.sleep(600)
    """)
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child, fork = map(int, parent.stdout.readline().split())
    try:
        parent.kill()
        parent.wait()
        until(lambda: not psutil.pid_exists(child) or _is_zombie(child))
    finally:
        os.kill(fork, signal.SIGKILL)
        parent.stdout.close()


def _is_zombie(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
