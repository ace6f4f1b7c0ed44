"""Atomic writes of local files."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tenfold.data.errors import UserError
from tenfold.data.storage.folder import Conflict
from tenfold.data.storage.local_folder import LocalFolder, replace_file, user_cache_folder
from tenfold.data.storage.open_folder import make_writable


def test_replace_file_leaves_no_temporary_file(tmp_path: Path) -> None:
    for data in (b"old", b"new"):
        replace_file(tmp_path / "a", data)
        assert (tmp_path / "a").read_bytes() == data
        assert os.listdir(tmp_path) == ["a"]


def test_failed_replace_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_file(tmp_path / "a", b"old")

    def fail(descriptor: int) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="the disk is full"):
        replace_file(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a", lambda folder: replace_file(Path(folder.path, "a"), b"new")),
        ("a", lambda folder: folder.write("a", b"new", replaces="")),
        ("probe", make_writable),
    ],
)
def test_planted_temporaries_are_not_followed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    write: Callable[[LocalFolder], None],
) -> None:
    victim, folder = tmp_path / "victim", tmp_path / "folder"
    victim.write_bytes(b"precious")
    folder.mkdir()
    (folder / f".{name}.{os.getpid()}.tmp").symlink_to(victim)
    write(LocalFolder(str(folder)))
    assert victim.read_bytes() == b"precious"
    # Even a name that was guessed is not opened.
    monkeypatch.setattr(os, "urandom", bytes)
    (folder / f".{name}.{'00' * 8}.tmp").symlink_to(victim)
    with pytest.raises((OSError, UserError), match="File exists"):
        write(LocalFolder(str(folder)))
    assert victim.read_bytes() == b"precious"


def test_exclusive_write_conflicts_with_other_bytes(tmp_path: Path) -> None:
    folder = LocalFolder(str(tmp_path))
    for _ in range(2):
        folder.write("sub/a", b"1", replaces="")
    with pytest.raises(Conflict, match="written by another process"):
        folder.write("sub/a", b"2", replaces="")
    folder.write("sub/a", b"3")
    assert folder.read("sub/a") == b"3"
    assert os.listdir(tmp_path / "sub") == ["a"]


def test_user_cache_folder_follows_xdg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache_folder("x") == tmp_path / "tenfold" / "x"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_cache_folder("x") == tmp_path / ".cache" / "tenfold" / "x"
