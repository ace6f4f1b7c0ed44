"""Folders behind fsspec, here in memory: the same shards as on a local disk."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest

import tenfold.data
from tenfold.data.errors import UserError
from tenfold.data.format.tfrecord import crc32c
from tenfold.data.integrity.verify_shards import verify_shards
from tenfold.data.planning.layout import LayoutPolicy
from tenfold.data.storage import fsspec_folder as module
from tenfold.data.storage.open_folder import open_folder
from tenfold.data.storage.read_manifest import read_manifest
from tenfold.data.writing.write_shards import WriteOptions, write_shards

URL = "memory://bucket/some/folder"
# fsspec's in-memory files exist in one process only.
ONE_PROCESS = WriteOptions(processes=1)


@pytest.fixture(autouse=True)
def _empty() -> Iterator[None]:
    yield
    fsspec.filesystem("memory").store.clear()


def test_fsspec_shards_equal_local_shards(
    make_class_folder: Callable[..., Path], tmp_path: Path
) -> None:
    source = str(make_class_folder(each=20))
    policy = LayoutPolicy(num_workers=2)
    write_shards(source, URL, policy=policy, options=ONE_PROCESS)
    write_shards(source, f"file://{tmp_path / 'out'}", policy=policy)
    folder = open_folder(URL)
    here = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert {name: folder.read(name) for name in folder.sizes()} == here
    assert not fsspec.filesystem("memory").glob("/bucket/some/folder/.tenfold-write/*")
    assert not verify_shards(URL, read_manifest(URL)).problems
    # Existing shards are not written again; a missing shard is.
    assert write_shards(source, URL, policy=policy, options=ONE_PROCESS).written == 0
    name = read_manifest(URL).splits[0].shards[0].name
    folder.remove(name)
    assert "it is missing" in verify_shards(URL, read_manifest(URL)).problems[0]
    write_shards(source, URL, policy=policy, options=ONE_PROCESS)
    assert folder.read(name) == here[name]


def test_fsspec_write_in_two_tasks(make_class_folder: Callable[..., Path]) -> None:
    source = make_class_folder(each=20)
    for index in (0, 1):
        done = write_shards(
            str(source), URL, options=WriteOptions(processes=1, writer_index=index, num_writers=2)
        )
        assert (done.manifest is None) == (index == 0)
    assert done.manifest == read_manifest(URL)


def test_fsspec_fetches_long_ranges_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_RANGE_BYTES", 1000)
    folder, data = open_folder(URL), bytes(range(250)) * 20
    folder.write("x", data)
    descriptor = os.open(tmp_path / "x", os.O_RDWR | os.O_CREAT)
    for offset, length in ((2000, 2999), (4999, 1), (0, 2000)):
        found = folder.fetch_range("x", offset, length, descriptor)
        assert found == crc32c(data[offset : offset + length])
    os.close(descriptor)
    assert (tmp_path / "x").read_bytes() == data


def test_missing_files_and_unknown_protocol() -> None:
    folder = open_folder(URL)
    assert folder.read("x") is None
    assert folder.sizes() == {}
    folder.remove("x")
    with pytest.raises(UserError, match=r"there is no memory://"):
        read_manifest(URL)
    with pytest.raises(UserError, match="nosuch"):
        read_manifest("nosuch://bucket/x")


def test_public_names_of_tenfold_data() -> None:
    assert tenfold.data.write_shards is write_shards
    assert tenfold.data.read_manifest is read_manifest
