"""One contract for every remote storage: memory, S3 (moto) and Cloud Storage (its emulator)."""

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from tenfold.data.errors import JobError
from tenfold.data.format.tfrecord import crc32c
from tenfold.data.integrity.verify_shards import verify_shards
from tenfold.data.storage.folder import Conflict, Folder
from tenfold.data.storage.fsspec_folder import creates_exclusively
from tenfold.data.storage.open_folder import open_folder
from tenfold.data.storage.read_manifest import read_manifest
from tenfold.data.writing.write_shards import WriteOptions, write_shards


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    """A server of S3's interface on a free port of loopback."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_url(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """An empty bucket of the S3 server, which this process and its children find."""
    for name, value in {
        "AWS_ENDPOINT_URL": s3_endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "NO_PROXY": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    bucket = f"bucket-{os.getpid()}-{abs(hash(tmp_path))}"
    files = fsspec.filesystem("s3")
    files.clear_instance_cache()  # instances of other tests hold their endpoints
    files = fsspec.filesystem("s3")
    files.call_s3("create_bucket", Bucket=bucket)
    return f"s3://{bucket}/some/folder"


@pytest.fixture(params=["memory", "s3", "gs"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """An empty folder of each storage."""
    if request.param == "gs":
        yield f"{request.getfixturevalue('bucket').url}/some/folder"
    elif request.param == "s3":
        yield request.getfixturevalue("s3_url")
    else:
        yield "memory://bucket/some/folder"
        fsspec.filesystem("memory").store.clear()


@pytest.fixture
def folder(url: str) -> Folder:
    return open_folder(url)


def test_written_file_is_read_back_whole_and_in_ranges(folder: Folder, tmp_path: Path) -> None:
    data = bytes(range(256)) * 40
    folder.write("a/x", data)
    folder.write("a/x", data[::-1])  # replaces it
    folder.write("a/x", data)
    (tmp_path / "y").write_bytes(b"y")
    folder.publish(tmp_path / "y", "y")
    assert not (tmp_path / "y").exists()
    assert folder.read("a/x") == data
    assert folder.read_range("a/x", 1000, 500) == data[1000:1500]
    assert folder.read_range("a/x", len(data) - 3, 500) == data[-3:]
    descriptor = os.open(tmp_path / "part", os.O_RDWR | os.O_CREAT)
    assert folder.fetch_range("a/x", 2000, 3000, descriptor) == crc32c(data[2000:5000])
    os.close(descriptor)
    assert (tmp_path / "part").read_bytes() == bytes(2000) + data[2000:5000]
    assert (folder.sizes("a"), folder.folders()) == ({"x": len(data)}, ["a"])
    assert {name: entry.bytes for name, entry in folder.walk()} == {"a/x": len(data), "y": 1}
    entry = folder.entry("y")
    assert entry is not None
    assert entry.bytes == 1


def test_missing_file_is_none_or_not_found(folder: Folder) -> None:
    assert folder.read("nosuch") is None
    assert folder.entry("nosuch") is None
    assert (folder.sizes(), folder.folders(), list(folder.walk())) == ({}, [], [])
    with pytest.raises(FileNotFoundError):
        folder.read_range("nosuch", 0, 1)
    folder.write("x", b"1")
    folder.remove("x")
    folder.remove("x")
    assert folder.read("x") is None


def test_exclusive_write_refuses_other_bytes(folder: Folder, tmp_path: Path) -> None:
    folder.write("x", b"first", replaces="")
    folder.write("x", b"first", replaces="")  # the same bytes conflict with nobody
    with pytest.raises(Conflict, match="written by another process"):
        folder.write("x", b"second", replaces="")
    (tmp_path / "y").write_bytes(b"third")
    with pytest.raises(Conflict):
        folder.publish(tmp_path / "y", "x", replaces="")
    assert folder.read("x") == b"first"


def test_shards_equal_those_of_a_disk(
    url: str, make_class_folder: Callable[..., Path], tmp_path: Path
) -> None:
    source = str(make_class_folder(each=20))
    # Memory is not shared by processes.
    options = WriteOptions(processes=1)
    write_shards(source, url, options=options)
    write_shards(source, str(tmp_path / "out"), options=options)
    local = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    remote = open_folder(url)
    assert {name: remote.read(name) for name in remote.sizes()} == local
    assert not verify_shards(url, read_manifest(url)).problems


@pytest.mark.parametrize("fault", ["flip", "shorten"])
def test_damaged_answer_of_s3_is_asked_for_again(
    s3_url: str, faulty: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    data = bytes(range(256)) * 40
    open_folder(s3_url).write("x", data)
    proxy = faulty(f"{fault}=0.5", upstream=os.environ["AWS_ENDPOINT_URL"], seed=3)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    fsspec.filesystem("s3").clear_instance_cache()
    folder = open_folder(s3_url)
    assert [folder.read("x") for _ in range(8)] == [data] * 8
    assert proxy.struck()[fault] > 1


def test_missing_credentials_of_s3_are_one_line(
    s3_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    fsspec.filesystem("s3").clear_instance_cache()
    with pytest.raises(JobError, match="NoCredentialsError: Unable to locate credentials"):
        open_folder(s3_url).write("x", b"1")


def test_file_system_without_its_own_mode_is_not_exclusive() -> None:
    class Plain(fsspec.AbstractFileSystem):
        protocol = "plain"

    class Creating(Plain):
        def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
            """Write `value`, as s3fs does."""

    class Overwriting(Plain):
        def pipe_file(self, path: str, value: bytes, overwrite: bool = True, **_: Any) -> None:
            """Write `value`, as adlfs does."""

    assert not creates_exclusively(Plain())
    assert creates_exclusively(Creating())
    assert creates_exclusively(Overwriting())
