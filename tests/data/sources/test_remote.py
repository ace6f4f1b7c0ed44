"""Class folders behind fsspec, and `prefetch_map`, which reads their images concurrently."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenfold.data.planning.layout import LayoutPolicy
from tenfold.data.runtime.threads import prefetch_map
from tenfold.data.sources.base import SourceChanged
from tenfold.data.sources.open_source import open_source
from tenfold.data.storage.local_folder import LocalFolder
from tenfold.data.storage.open_folder import open_folder
from tenfold.data.writing.write_shards import WriteOptions, write_shards


@given(st.lists(st.integers()), st.integers(1, 5))
def test_prefetch_map_keeps_order_and_bound(items: list[int], max_in_flight: int) -> None:
    started = taken = 0

    def source() -> Iterator[int]:
        nonlocal started
        for item in items:
            started += 1
            assert started - taken <= max_in_flight
            yield item

    for item, result in zip(
        items, prefetch_map(lambda x: x * 2, source(), max_in_flight=max_in_flight), strict=True
    ):
        assert result == item * 2
        taken += 1
    assert taken == len(items)


@pytest.mark.timeout(150)
def test_prefetch_map_runs_max_in_flight_items() -> None:
    together = threading.Barrier(4)  # raises unless four threads wait at once
    workers = set()

    def meet(number: int) -> bool:
        workers.add(threading.current_thread())
        return together.wait(120) >= 0

    assert list(prefetch_map(meet, range(8), max_in_flight=4)) == [True] * 8
    assert len(workers) == 4
    assert not workers & set(threading.enumerate()), "threads outlive their work"


def test_prefetch_map_raises_in_order() -> None:
    results = prefetch_map(lambda x: 6 // x, [3, 2, 0, 1], max_in_flight=3)
    assert (next(results), next(results)) == (2, 3)
    with pytest.raises(ZeroDivisionError):
        next(results)


@pytest.fixture
def in_memory(
    tmp_path: Path, make_class_folder: Callable[..., Path]
) -> Iterator[tuple[Path, str]]:
    """A tree of class folders, and the URL of its copy on fsspec's in-memory storage."""
    import fsspec

    tree = make_class_folder(classes=2, each=9)
    (tree / "class 0" / "deep").mkdir()
    (tree / "class 0" / "0001.png").rename(tree / "class 0" / "deep" / "1.png")
    files = fsspec.filesystem("memory")
    files.put(str(tree), f"/{tmp_path.name}/tree", recursive=True)
    yield tree, f"memory://{tmp_path.name}/tree"
    files.rm(f"/{tmp_path.name}", recursive=True)


def test_walk_is_alike_on_disk_and_fsspec(in_memory: tuple[Path, str]) -> None:
    tree, url = in_memory
    remote, local = open_folder(url), LocalFolder(str(tree))
    assert list(remote.walk()) == list(local.walk())
    assert list(remote.walk("class 0")) == list(local.walk("class 0"))
    assert len(list(local.walk())) == 17
    assert remote.folders() == local.folders() == ["class 0", "class 1"]
    assert remote.entry("class 1/0003.png") == local.entry("class 1/0003.png") is not None
    assert remote.entry("class 1") is local.entry("class 1") is None
    assert remote.entry("none") is local.entry("none") is None


def test_class_folders_behind_fsspec_give_same_shards(
    in_memory: tuple[Path, str], tmp_path: Path
) -> None:
    tree, url = in_memory
    for source, output in ((str(tree), "local"), (url, "remote")):
        write_shards(
            source, str(tmp_path / output), options=WriteOptions(processes=1),
            policy=LayoutPolicy(num_workers=2, shards_per_worker=2, min_shard_bytes=100),
        )  # fmt: skip
    local = {path.name: path.read_bytes() for path in (tmp_path / "local").glob("*.tfrecord")}
    assert len(local) == 4
    remote = {path.name: path.read_bytes() for path in (tmp_path / "remote").glob("*.tfrecord")}
    assert remote == local


def test_split_folders_behind_fsspec_give_same_shards(
    make_class_folder: Callable[..., Path], tmp_path: Path
) -> None:
    """Folders of images, and tables, in the folders train and val."""
    import fsspec

    files = fsspec.filesystem("memory")
    for split in ("train", "val"):
        make_class_folder(name=f"data/{split}", classes=2, each=6)
        (tmp_path / f"{split}.csv").write_text("x,label\n" + "1,a\n2,b\n" * 4)
    files.put(str(tmp_path / "data"), f"/{tmp_path.name}/data", recursive=True)
    url = f"memory://{tmp_path.name}"
    for split in ("train", "val"):
        files.put(str(tmp_path / f"{split}.csv"), f"/{tmp_path.name}/{split}.csv")
    tables = [{s: f"{base}/{s}.csv" for s in ("train", "val")} for base in (tmp_path, url)]
    for number, source in enumerate([str(tmp_path / "data"), f"{url}/data", *tables]):
        manifest = write_shards(
            source, str(tmp_path / str(number)), options=WriteOptions(processes=1),
            policy=LayoutPolicy(num_workers=2),
        ).manifest  # fmt: skip
        assert manifest is not None
        assert [split.name for split in manifest.splits] == ["train", "validation"]
    for local, remote in ((0, 1), (2, 3)):
        shards = {path.name for path in (tmp_path / str(local)).glob("*.tfrecord")}
        assert len(shards) == 4
        for name in shards:
            assert (tmp_path / str(local) / name).read_bytes() == (
                tmp_path / str(remote) / name
            ).read_bytes()
    files.rm(f"/{tmp_path.name}", recursive=True)


def test_image_of_changed_size_raises_source_changed(
    in_memory: tuple[Path, str], tmp_path: Path
) -> None:
    _, url = in_memory
    (tmp_path / "scratch").mkdir()
    source = open_source(url, tmp_path / "scratch")
    folder = open_folder(url)
    folder.write(source.name(2).removeprefix(f"{url}/"), b"shorter")
    with pytest.raises(SourceChanged, match="has changed or gone"):
        source.encoded(2)
