"""`Mirror`: uploads of growing local files to a remote folder."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from tenfold.data.errors import JobError, UserError
from tenfold.data.storage.mirror import Mirror, make_empty_folder, work_folder
from tenfold.data.storage.open_folder import open_folder

URL = "memory://bucket/run"


@pytest.fixture(autouse=True)
def _empty() -> Iterator[None]:
    yield
    fsspec.filesystem("memory").store.clear()


class FlakyFolder:
    """A remote folder that records uploads, and rejects them while `broken`."""

    def __init__(self) -> None:
        self.inner = open_folder(URL)
        self.uploaded: list[str] = []
        self.broken = False

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    def write(self, name: str, data: bytes) -> None:
        if self.broken:
            raise JobError("the storage is unreachable")
        self.uploaded.append(name)
        self.inner.write(name, data)


def mirror(local: Path, remote: FlakyFolder, interval_s: float = 1000.0) -> Mirror:
    return Mirror(
        local,
        remote,  # type: ignore[arg-type]
        patterns=("*.json", "logs/*"),
        interval_s=interval_s,
    )


def test_mirror_uploads_only_changed_matches(tmp_path: Path) -> None:
    remote = FlakyFolder()
    (tmp_path / "logs").mkdir()
    for name in ("a.json", ".b.json", "c.txt", "logs/0.log", "logs/.1.log"):
        (tmp_path / name).write_text(name)
    uploads = mirror(tmp_path, remote)
    uploads.flush()
    assert remote.uploaded == ["a.json", "logs/0.log"]
    assert remote.inner.read("logs/0.log") == b"logs/0.log"
    uploads.flush()
    assert len(remote.uploaded) == 2
    with (tmp_path / "logs/0.log").open("a") as file:
        file.write(" and more")
    uploads.flush()
    assert remote.uploaded[2:] == ["logs/0.log"]
    assert remote.inner.read("logs/0.log") == b"logs/0.log and more"


def test_fetched_file_can_be_appended_to(tmp_path: Path) -> None:
    remote = FlakyFolder()
    for name in ("logs/0.log", "logs/1.log", "logs/deep/2.log", "a.json"):
        remote.inner.write(name, name.encode())
    uploads = mirror(tmp_path, remote)
    uploads.fetch("logs/*.log", "missing.json")
    assert sorted(path.name for path in (tmp_path / "logs").iterdir()) == ["0.log", "1.log"]
    uploads.flush()
    assert remote.uploaded == []
    with (tmp_path / "logs/1.log").open("a") as file:
        file.write("!")
    uploads.flush()
    assert remote.inner.read("logs/1.log") == b"logs/1.log!"


def test_mirror_survives_errors_and_flush_raises(tmp_path: Path) -> None:
    remote = FlakyFolder()
    remote.broken = True
    uploads = mirror(tmp_path, remote, interval_s=0.01)
    uploads.start()
    (tmp_path / "a.json").write_text("1")
    with pytest.raises(JobError, match="the storage is unreachable"):
        uploads.flush()
    remote.broken = False
    end = time.monotonic() + 90
    while remote.inner.read("a.json") != b"1":
        assert time.monotonic() < end
        time.sleep(0.01)
    # The background thread may be throttled; `close` uploads the last state.
    (tmp_path / "a.json").write_text("22")
    uploads.close()
    assert remote.inner.read("a.json") == b"22"


def test_each_url_has_its_own_work_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    names = {work_folder(url) for url in ("gs://a/x", "gs://b/x", "gs://a/x/", "gs://a/.. /é")}
    assert len(names) == 3
    assert {path.parent for path in names} == {tmp_path / "tenfold" / "runs"}
    folder = make_empty_folder(work_folder("gs://a/x"))
    (folder / "file").touch()
    assert list(make_empty_folder(folder).iterdir()) == []


def test_unwritable_work_folder_raises_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="set XDG_CACHE_HOME"):
        make_empty_folder(tmp_path / "file" / "folder")
    assert os.path.isfile(tmp_path / "file")


def test_planted_work_folder_is_refused(tmp_path: Path) -> None:
    work, elsewhere = tmp_path / "runs", tmp_path / "elsewhere"
    work.mkdir()
    elsewhere.mkdir()
    (work / "launch").symlink_to(elsewhere)
    with pytest.raises(
        UserError, match=r"'.*/runs/launch' is a symbolic link, not a folder: remo"
    ):
        make_empty_folder(work / "launch")
    work.chmod(0o777)
    with pytest.raises(
        UserError, match=r"the folder of runs '.*/runs' has mode 0777: others must"
    ):
        make_empty_folder(work / "chief")
