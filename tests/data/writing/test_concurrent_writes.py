"""Two writes into one folder at the same time: one wins, the other raises, nothing is lost."""

from dataclasses import replace
from pathlib import Path

import pytest

from tenfold.data.errors import JobError, UserError
from tenfold.data.format.manifest import MANIFEST_NAME, ShardInfo
from tenfold.data.format.tfrecord import crc32c
from tenfold.data.integrity.verify_shards import verify_shards
from tenfold.data.planning.layout import LayoutPolicy
from tenfold.data.storage.local_folder import LocalFolder
from tenfold.data.writing import output_folder as output
from tenfold.data.writing.ledger import (
    KEYS_NAME,
    FinishedShard,
    WriteKeys,
    read_finished,
    read_keys,
    record_finished,
)
from tenfold.data.writing.output_folder import begin_output
from tenfold.data.writing.write_shards import WriteOptions, write_shards

FIRST, SECOND = WriteKeys("first", "", ""), WriteKeys("second", "", "")
SHARD = "train-00000-of-00004.tfrecord"


class Overtaken(LocalFolder):
    """A folder in which another write, of `keys`, begins and adds a shard at a moment of the race.

    With `when` "read": after this write has read that no write has begun; with "listed": while
    it lists the files.
    """

    def __init__(self, path: Path, keys: WriteKeys, when: str) -> None:
        super().__init__(str(path))
        self._keys: WriteKeys | None = keys
        self._when = when

    def read(self, name: str, *, version: str = "") -> bytes | None:
        found = super().read(name, version=version)
        if name == KEYS_NAME and self._when == "read":
            self._overtake()
        return found

    def sizes(self, prefix: str = "") -> dict[str, int]:
        found = super().sizes(prefix)
        if self._when == "listed":
            self._overtake()
        return found

    def _overtake(self) -> None:
        keys, self._keys = self._keys, None
        if keys is not None:
            other = LocalFolder(self.path)
            begin_output(other, keys, (), (), resume=True, overwrite=False)
            other.write(SHARD, b"data")
            info = ShardInfo(SHARD, 1, 4, crc32c(b"data"), 1)
            record_finished(other, FinishedShard(info, (), {}), keys.digest)


@pytest.mark.parametrize(
    ("when", "overwrite"), [("read", False), ("listed", False), ("read", True)]
)
def test_overtaken_write_of_other_data_raises(tmp_path: Path, when: str, overwrite: bool) -> None:
    folder = Overtaken(tmp_path, FIRST, when)
    with pytest.raises(UserError, match=r"^output '.*' is being written to by another process"):
        begin_output(folder, SECOND, (), (), resume=True, overwrite=overwrite)
    assert read_keys(LocalFolder(str(tmp_path))) == FIRST
    assert list(read_finished(LocalFolder(str(tmp_path)), [SHARD], FIRST)) == [SHARD]


@pytest.mark.parametrize("when", ["read", "listed"])
def test_writers_of_one_write_may_begin_together(tmp_path: Path, when: str) -> None:
    begin_output(Overtaken(tmp_path, FIRST, when), FIRST, (), (), resume=True, overwrite=False)
    folder = LocalFolder(str(tmp_path))
    assert read_keys(folder) == FIRST
    assert list(read_finished(folder, [SHARD], FIRST)) == [SHARD], (
        "the other writer's shard is lost"
    )


class Finished(LocalFolder):
    """A folder in which another write begins and finishes right after this one finds none."""

    def read(self, name: str, *, version: str = "") -> bytes | None:
        found = super().read(name, version=version)
        if name == KEYS_NAME and found is None:
            Path(self.path, MANIFEST_NAME).write_bytes(b"another's")
        return found


@pytest.mark.parametrize("overwrite", [False, True])
def test_just_finished_write_is_not_touched(tmp_path: Path, overwrite: bool) -> None:
    with pytest.raises(JobError, match=r"^output '.*' has been taken over by another write"):
        begin_output(Finished(str(tmp_path)), FIRST, (), (), resume=True, overwrite=overwrite)
    assert (tmp_path / MANIFEST_NAME).read_bytes() == b"another's"
    assert read_keys(LocalFolder(str(tmp_path))) is None


def test_shards_removed_while_writing_raise(tmp_path: Path) -> None:
    """A single writer whose shards vanish does not end as one of several writers would."""
    records = [{"x": number} for number in range(50)]
    out = tmp_path / "out"

    def remove(*_: object) -> None:
        for shard in out.glob("*.tfrecord"):
            shard.unlink()

    with pytest.raises(JobError, match=r"^output '.*': shards of this write have been removed"):
        write_shards(records, str(out), options=WriteOptions(processes=1), on_progress=remove)
    assert not (out / MANIFEST_NAME).exists()


def test_leftovers_of_killed_overwrite_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, alone = tmp_path / "out", WriteOptions(processes=1)
    policy = LayoutPolicy(num_workers=5)
    write_shards([{"x": number} for number in range(50)], out, policy=policy, options=alone)
    other = [{"x": f"{number}"} for number in range(30)]

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(output, "_remove_shards", killed)
        with pytest.raises(KeyboardInterrupt):
            write_shards(other, str(out), options=replace(alone, overwrite=True))
    (out / "quarantine.jsonl").write_text("another's")
    manifest = write_shards(other, str(out), options=alone).manifest
    assert manifest is not None
    kept = {path.name for path in out.iterdir() if path.suffix in (".tfrecord", ".jsonl")}
    assert kept == {shard.name for split in manifest.splits for shard in split.shards}
    assert not verify_shards(str(out), manifest).problems


@pytest.mark.parametrize("kept", [0, 1, -1])
def test_note_cut_by_a_crash_does_not_count(tmp_path: Path, kept: int) -> None:
    """A crash of the machine may cut a note, which is not synced; its shard is written again."""
    folder = LocalFolder(str(tmp_path))
    folder.write(SHARD, b"data")
    info = ShardInfo(SHARD, 1, 4, crc32c(b"data"), 1)
    record_finished(folder, FinishedShard(info, (), {}), FIRST.digest)
    assert list(read_finished(folder, [SHARD], FIRST)) == [SHARD]
    (note,) = tmp_path.glob(f".*/{SHARD}.json")
    note.write_bytes(note.read_bytes()[:kept])
    assert read_finished(folder, [SHARD], FIRST) == {}
