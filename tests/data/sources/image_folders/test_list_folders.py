"""Listings of folders of images: in one process or several, in the order of the paths."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tenfold.data.errors import JobError, UserError
from tenfold.data.format.tfrecord import FRAME_BYTES
from tenfold.data.sources.base import SourceOptions
from tenfold.data.sources.image_folders import class_folders, list_folders
from tenfold.data.sources.image_folders.list_folders import Listing, ListingOptions, list_folder
from tenfold.data.sources.open_source import open_source

NAMES = ["a", "b", "c", "d"]
OPTIONS = ListingOptions((".jpg", ".png"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number, name in enumerate(NAMES):
        folder = tmp_path / name
        (folder / "below").mkdir(parents=True)
        for index in range(5 - number):
            (folder / f"{index * 7 % 5}.JPG").write_bytes(b"x" * index)
        (folder / "below" / "ä\udcff.png").write_bytes(b"12")
        (folder / ".hidden.png").touch()
        (folder / "notes.txt").touch()
    return tmp_path


def listings(root: Path) -> list[Listing]:
    return list(list_folders.list_folders(str(root), NAMES, OPTIONS))


def in_processes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Have all folders but the first listed by processes; return the numbers of these folders."""
    calls: list[int] = []
    original = list_folders._list_by_processes

    def counted(root, names, options):
        calls.append(len(names))
        return original(root, names, options)

    monkeypatch.setattr(list_folders, "_MANY_FILES", 1)
    monkeypatch.setattr(list_folders, "_list_by_processes", counted)
    monkeypatch.setattr(list_folders, "can_fork", lambda: sys.platform == "linux")
    return calls


def test_processes_list_what_one_process_lists(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = listings(root)
    assert [path for path, _, _ in alone[3].images] == [
        b"d/0.JPG", b"d/2.JPG", "d/below/ä".encode() + b"\xff.png",
    ]  # fmt: skip
    assert [size for _, size, _ in alone[0].images] == [0, 3, 1, 4, 2, 2]
    assert alone[0].images[1][2] == (root / "a" / "1.JPG").stat().st_mtime_ns
    assert alone[0].others == [b"a/notes.txt"]
    calls = in_processes(monkeypatch)
    assert listings(root) == alone
    assert calls == [3]
    assert Listing.of(reversed(alone[0].images), alone[0].others) == alone[0]


def test_errors_in_processes_are_those_of_one(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "c" / "below" / "up").symlink_to(root / "c")
    with pytest.raises(UserError, match=r"c/below/up' is a link to a folder that contains it"):
        listings(root)
    in_processes(monkeypatch)
    with pytest.raises(UserError, match=r"c/below/up' is a link to a folder that contains it"):
        listings(root)
    with pytest.raises(JobError, match="missing"):
        list(list_folders.list_folders(str(root), ["a", "b", "missing"], OPTIONS))


def test_folder_alone_leaves_out_those_below(root: Path) -> None:
    (root / "top.png").write_bytes(b"123")
    found = list_folder(str(root), "", replace(OPTIONS, deep=False))
    assert [(path, size) for path, size, _ in found.images] == [(b"top.png", 3)]
    assert found.others == []


@pytest.mark.parametrize("classes", [None, ()], ids=["classes", "none"])
def test_sizes_alone_give_the_same_sums_and_notes(
    root: Path, tmp_path_factory: pytest.TempPathFactory, classes: tuple[str, ...] | None
) -> None:
    (root / "stray.png").write_bytes(b"123")
    options = SourceOptions(classes=classes)
    whole, sizes = (
        open_source(str(root), tmp_path_factory.mktemp("scratch"), each)
        for each in (options, replace(options, sizes_only=True))
    )
    assert whole.stats.num_examples == (14 + 4 if classes is None else 14 + 5)
    assert replace(sizes.stats, fingerprint=whole.stats.fingerprint) == whole.stats
    assert sizes.notes == whole.notes
    assert "notes.txt and" in str(whole.notes)


@pytest.mark.parametrize("label", [None, 3, 300])
def test_bytes_of_records_sum_up(label: int | None) -> None:
    """Lengths take another byte from 128, 16,384, … on: sizes on both sides of each."""
    sizes = [
        size + step for size in (0, 127, 128, 2**14, 2**21) for step in (0, 1, -60, 5, -5, 90)
    ]
    sizes = [max(0, size) for size in sizes]
    whole = sum(class_folders._record_bytes(size, label) for size in sizes)
    assert sum(sizes) + class_folders._overheads(sizes, label) == whole > len(sizes) * FRAME_BYTES
