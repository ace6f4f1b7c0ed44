"""GcsFolder, against a server and through a proxy that injects faults."""

import errno
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenfold.data.errors import JobError, UserError
from tenfold.data.format.tfrecord import crc32c
from tenfold.data.storage.folder import GCS_SCHEMES, Conflict, Entry
from tenfold.data.storage.gcs import gcs_client
from tenfold.data.storage.open_folder import open_folder
from tenfold.data.storage.retry import RetryPolicy, TransientError, with_retries

ALL_FAULTS = (
    "503=0.08", "429=0.05", "cut=0.05", "stall=0.02", "shorten=0.05", "flip=0.05",
    "lose_answer=0.1",
)  # fmt: skip


def test_written_objects_are_read_back(bucket: Any, tmp_path: Path) -> None:
    folder = open_folder(f"{bucket.url}/some folder/ü?#")
    assert folder.path == f"{bucket.url}/some folder/ü?#"
    assert (folder.read("a/b"), folder.entries(), folder.sizes("a")) == (None, {}, {})
    folder.write("a/b", b"hello")
    folder.write("c", b"")
    assert bucket.names() == ["some folder/ü?#/a/b", "some folder/ü?#/c"]
    assert (folder.read("a/b"), folder.read("c")) == (b"hello", b"")
    assert (folder.sizes(), folder.sizes("a")) == ({"c": 0}, {"b": 5})
    assert folder.entries("a")["b"].crc32c == crc32c(b"hello")
    parts = [(0, 5), (1, 3), (3, 9), (5, 2), (7, 1), (2, 0)]
    assert [folder.read_range("a/b", *part) for part in parts] == [
        b"hello", b"ell", b"lo", b"", b"", b"",
    ]  # fmt: skip
    with pytest.raises(FileNotFoundError):
        folder.read_range("nosuch", 0, 1)
    (tmp_path / "x").write_bytes(b"file")
    folder.publish(tmp_path / "x", "c")
    assert not (tmp_path / "x").exists()
    assert folder.read("c") == b"file"
    folder.remove("a/b")
    folder.remove("a/b")
    assert bucket.names() == ["some folder/ü?#/c"]


def test_listing_spans_pages(bucket: Any) -> None:
    for number in range(1003):
        bucket.write(f"p/{number}", b"1")
    assert len(open_folder(f"{bucket.url}/p").sizes()) == 1003


def test_range_is_copied_to_its_offset(bucket: Any, tmp_path: Path) -> None:
    folder = open_folder(f"{bucket.url}/a")
    data = bytes(range(256)) * 9000  # several blocks long
    folder.write("x", data)
    target = tmp_path / "x"
    descriptor = os.open(target, os.O_RDWR | os.O_CREAT)
    for offset, length in ((1_000_000, 2_000_000), (0, 1_000_000)):
        found = folder.fetch_range("x", offset, length, descriptor)
        assert found == crc32c(data[offset : offset + length])
    os.close(descriptor)
    assert target.read_bytes() == data


def test_server_without_ranges_is_supported(
    bucket: Any, faulty: Callable[..., Any], tmp_path: Path
) -> None:
    data = bytes(range(256)) * 9000
    bucket.write("a/x", data)
    proxy = faulty("whole=1")
    folder = open_folder(f"{bucket.url}/a")
    assert folder.read_range("x", 1_000_000, 7) == data[1_000_000:1_000_007]
    assert folder.read_range("x", len(data) - 2, 100) == data[-2:]
    target = tmp_path / "x"
    descriptor = os.open(target, os.O_RDWR | os.O_CREAT)
    found = folder.fetch_range("x", 1_000_000, 1_000_000, descriptor)
    os.close(descriptor)
    assert found == crc32c(data[1_000_000:2_000_000])
    assert target.read_bytes() == bytes(1_000_000) + data[1_000_000:2_000_000]
    assert proxy.struck()["whole"] == 3


def test_full_local_disk_is_not_retried(bucket: Any) -> None:
    folder = open_folder(f"{bucket.url}/a")
    folder.write("x", b"data")
    descriptor = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(OSError, match="No space left") as raised:
        folder.fetch_range("x", 0, 4, descriptor)
    os.close(descriptor)
    assert raised.value.errno == errno.ENOSPC


def test_writes_respect_preconditions(bucket: Any) -> None:
    folder = open_folder(bucket.url)
    folder.write("x", b"first", replaces="")
    folder.write("x", b"first", replaces="")  # identical bytes do not conflict
    with pytest.raises(Conflict, match="written by another process"):
        folder.write("x", b"second", replaces="")
    version = folder.entries()["x"].version
    folder.write("x", b"second", replaces=version)
    with pytest.raises(Conflict):
        folder.write("x", b"third", replaces=version)
    folder.write("x", b"third")
    bucket.remove("x")
    folder.write("x", b"fourth", replaces=version)  # the object to be replaced is gone
    assert bucket.read("x") == b"fourth"


def test_one_of_many_writers_wins(bucket: Any) -> None:
    """The emulators of other storage cannot show it: they look for the file, then store it."""
    for race in range(10):
        outcomes: list[bytes] = []

        def write(data: bytes, name: str = f"x{race}", won: list[bytes] = outcomes) -> None:
            try:
                open_folder(bucket.url).write(name, data, replaces="")
                won.append(data)
            except Conflict:
                pass

        threads = [threading.Thread(target=write, args=(b"%d" % n,)) for n in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert outcomes == [bucket.read(f"x{race}")]


@pytest.mark.timeout(240)
def test_transient_faults_are_retried(
    bucket: Any, faulty: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = faulty(*ALL_FAULTS, seed=4)  # with this seed every fault strikes
    monkeypatch.setenv("TENFOLD_STORAGE_STALL_S", "3")
    folder = open_folder(f"{bucket.url}/p")
    data = {f"{n:03d}": random.Random(n).randbytes(n * 1000) for n in range(0, 200, 5)}

    def work(names: list[str]) -> None:
        for name in names:
            folder.write(name, data[name], replaces="" if int(name) % 10 else None)
            assert folder.read(name) == data[name]
            # A range has no checksum of its own, so only its length is reliable.
            assert len(folder.read_range(name, 10, 5000)) == len(data[name][10:5010])

    failures: list[BaseException] = []

    def run(names: list[str]) -> None:
        try:
            work(names)
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    threads = [threading.Thread(target=run, args=(list(data)[k::4],)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    entries = folder.entries()
    assert {name: (e.bytes, e.crc32c) for name, e in entries.items()} == {
        name: (len(value), crc32c(value)) for name, value in data.items()
    }
    assert {name: bucket.read(f"p/{name}") for name in data} == data
    struck = proxy.struck()
    assert set(struck) == {share.split("=")[0] for share in ALL_FAULTS}, struck


@pytest.mark.timeout(150)
def test_stalled_upload_times_out(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:  # never reads
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("TENFOLD_STORAGE_STALL_S", "1")
        monkeypatch.setenv("TENFOLD_STORAGE_RETRY_S", "0")
        began = time.monotonic()
        with pytest.raises(JobError, match=r"timed out.* \(given up after 1 attempt"):
            open_folder(bucket.url).write("x", bytes(30_000_000))
        assert time.monotonic() - began < 100


@pytest.mark.parametrize("status", ["401", "403"])
def test_missing_permission_is_not_retried(
    bucket: Any, faulty: Callable[..., Any], status: str
) -> None:
    proxy = faulty(f"{status}=1")
    folder = open_folder(bucket.url)
    calls: list[Callable[[], Any]] = [
        lambda: folder.read("x"),
        folder.sizes,
        lambda: folder.write("x", b"1"),
    ]
    for call in calls:
        with pytest.raises(UserError, match=rf"no Google credentials were found.*{status}"):
            call()
    assert proxy.struck() == {status: 3}, "the request was retried"


def test_invalid_key_file_raises_user_error(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STORAGE_EMULATOR_HOST")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    with pytest.raises(UserError, match=r"none\.json was not found"):
        open_folder(bucket.url).sizes()


def test_missing_bucket_raises_user_error(bucket: Any) -> None:
    folder = open_folder("gs://no-such-bucket/x")
    calls: list[Callable[[], Any]] = [
        lambda: folder.read("x"),
        folder.sizes,
        lambda: folder.write("x", b"1"),
    ]
    for call in calls:
        with pytest.raises(UserError, match="there is no bucket 'no-such-bucket'"):
            call()
    with pytest.raises(UserError, match="names no bucket"):
        open_folder("gs:///x")
    assert open_folder(f"gcs://{bucket.name}/y").path == f"{bucket.url}/y"
    assert GCS_SCHEMES == ("gs://", "gcs://")
    assert Entry(3) == Entry(3, None, "")


class _Clock:
    """A clock that only `sleep` advances."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


def _outcome(call: Callable[[], int]) -> "int | JobError":
    try:
        return call()
    except JobError as error:
        return error


@given(
    budget_s=st.floats(0, 500), first_pause_s=st.floats(0.01, 5), failures=st.integers(0, 60)
)  # fmt: skip
def test_retries_stay_within_budget(budget_s: float, first_pause_s: float, failures: int) -> None:
    clock, attempts = _Clock(), 0
    policy = RetryPolicy(budget_s, first_pause_s, max_pause_s=16.0)

    def attempt() -> int:
        nonlocal attempts
        attempts += 1
        if attempts <= failures:
            raise TransientError(f"failure {attempts}")
        return attempts

    outcome = _outcome(
        lambda: with_retries(attempt, what="it", policy=policy, sleep=clock.sleep, now=clock.now)
    )
    given_up = f"it: failure {attempts} (given up after {attempts} attempts in {clock.time:.0f} s"
    assert outcome == failures + 1 or str(outcome).startswith(given_up)
    assert clock.time <= budget_s


def test_pauses_grow_to_the_maximum() -> None:
    policy = RetryPolicy(first_pause_s=1.0, max_pause_s=8.0)
    for attempt, bound in [(1, 1.0), (2, 2.0), (3, 4.0), (4, 8.0), (5, 8.0), (60, 8.0)]:
        pauses = [policy.pause_s(attempt) for _ in range(200)]
        assert 0.5 * bound < max(pauses) <= bound
        assert min(pauses) < 0.5 * bound  # full jitter: pauses begin at 0


@pytest.mark.parametrize("text", ["x", "-1", "inf", "nan"])
def test_invalid_retry_seconds_raise_user_error(
    bucket: Any, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("TENFOLD_STORAGE_RETRY_S", text)
    with pytest.raises(UserError, match=f"TENFOLD_STORAGE_RETRY_S={text} is not a number"):
        open_folder(bucket.url).sizes()
    assert os.environ["TENFOLD_STORAGE_RETRY_S"] == text


@pytest.fixture
def account(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Credentials for the server in place of Google's; renewing them raises `problem`."""
    import google.auth.credentials

    class Account(google.auth.credentials.Credentials):
        problem: Exception | None = None
        renewed = 0

        def refresh(self, request: Any) -> None:
            self.renewed += 1
            if self.problem:
                raise self.problem
            self.token = "a-token"

    found = Account()
    monkeypatch.setattr(gcs_client, "_token", lambda: found)
    gcs_client._clients_of.cache_clear()
    yield found
    gcs_client._clients_of.cache_clear()


def test_credentials_are_sent_and_renewed(
    bucket: Any, account: Any, faulty: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import google.auth.exceptions

    proxy = faulty()
    folder = open_folder(bucket.url)
    folder.write("x", b"1")
    assert folder.read("x") == b"1"
    assert account.renewed == 1
    account.token, account.problem = None, google.auth.exceptions.RefreshError("it was revoked")
    with pytest.raises(UserError, match=r"not valid any more \(it was revoked\): run 'gcloud"):
        folder.read("x")
    assert account.renewed == 2, "a refusal was repeated"
    account.problem = google.auth.exceptions.TransportError("no route")
    monkeypatch.setenv("TENFOLD_STORAGE_RETRY_S", "0.3")
    with pytest.raises(JobError, match=r"could not be renewed: no route \(given up after"):
        folder.read("x")
    assert account.renewed > 3
    assert proxy.end()["authorizations"] == {"Bearer a-token": 2}


def test_the_account_needs_a_role(bucket: Any, account: Any, faulty: Callable[..., Any]) -> None:
    faulty("403=1")
    with pytest.raises(UserError, match=r"the account may not write there \(403 the account does"):
        open_folder(bucket.url).write("x", b"1")


def test_failures_print_no_traceback_of_gcsfs(
    bucket: Any, faulty: Callable[..., Any], monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setenv("TENFOLD_STORAGE_RETRY_S", "1")
    faulty("503=1")
    with pytest.raises(JobError, match=r"503 .*given up after \d+ attempts in \d s"):
        open_folder(bucket.url).read("x")
    assert not [record for record in caplog.records if record.name.startswith("gcsfs")]


def test_an_upload_keeps_its_parts_unjoined() -> None:
    parts = [b"head", bytes(3 << 20), b"tail"]
    blocks = list(gcs_client._blocks(parts))
    assert b"".join(blocks) == b"".join(parts)
    assert {id(block.obj) for block in blocks} == {id(part) for part in parts}
    assert max(map(len, blocks)) == 1 << 20


@pytest.mark.parametrize("bypass", [True, False])
def test_proxy_of_environment_is_used(
    bucket: Any, monkeypatch: pytest.MonkeyPatch, bypass: bool
) -> None:
    endpoint = bucket.server.endpoint
    # The server acts as the proxy of a host that does not exist, and gets full URLs.
    monkeypatch.setenv("http_proxy", endpoint)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "nowhere.invalid" if bypass else "")
    gcs_client._clients_of.cache_clear()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://nowhere.invalid:1")
    monkeypatch.setenv("TENFOLD_STORAGE_RETRY_S", "0")
    folder = open_folder(bucket.url)
    if bypass:
        with pytest.raises(JobError, match=r"nowhere\.invalid"):
            folder.sizes()
    else:
        assert folder.sizes() == {}
