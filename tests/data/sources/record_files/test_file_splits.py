"""Splits by the names of files."""

from pathlib import Path

import pytest

from tenfold.data import LayoutPolicy, WriteOptions, write_shards
from tenfold.data.format.row_file import RowFile, RowFileWriter
from tenfold.data.planning.splits.own_splits import OwnSplit
from tenfold.data.sources.open_source import open_source
from tenfold.data.sources.record_files.file_splits import own_splits


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["train-00-of-02.tfrecord", "val-00-of-01.tfrecord"], ["train", "validation"]),
        (["mnist-test.tfrecord-00000-of-00001", "mnist-train.tfrecord-00000-of-00001"],
         ["test", "train"]),
        (["a-train-0.tar", "a-val-0.tar", "b-train-0.tar"], ["train", "validation", "train"]),
        (["train.tfrecord.gz", "dev.tfrecord.gz"], ["train", "validation"]),
        # One split, none, or several names in one file: all of it is train.
        (["test-0.tfrecord", "test-1.tfrecord"], []),
        (["train-0.tfrecord", "more-0.tfrecord"], []),
        (["train-test-0.tfrecord", "val-0.tfrecord"], []),
        (["trainer-0.tfrecord", "values-0.tfrecord"], []),
    ],
)  # fmt: skip
def test_names_of_files_name_splits(names: list[str], splits: list[str], tmp_path: Path) -> None:
    """The files have 0, 1, 2, … records."""
    with RowFileWriter(tmp_path / "rows", "<IQ") as rows:
        for number in range(len(names)):
            for record in range(number):
                rows.append(number, record)
    files = [str(tmp_path / name) for name in names]
    found = own_splits(files, RowFile(tmp_path / "rows", "<IQ"))
    assert found == tuple(OwnSplit(name, number) for number, name in enumerate(splits))


def test_shards_are_written_again_with_their_splits(tmp_path: Path) -> None:
    """Whatever the splits are called, if a manifest names them."""
    records = [{"value": number} for number in range(40)]
    options = WriteOptions(
        policy=LayoutPolicy(num_workers=2), splits={"fold_0": 0.5, "test": 0.3, "fold_1": 0.2}
    )
    first = write_shards(records, tmp_path / "a", options=options).manifest
    again = WriteOptions(policy=LayoutPolicy(num_workers=1))
    second = write_shards(tmp_path / "a", tmp_path / "b", options=again).manifest
    assert first is not None
    assert second is not None
    assert {split.name: split.fingerprint for split in first.splits} == {
        split.name: split.fingerprint for split in second.splits
    }
    (tmp_path / "scratch").mkdir()
    alone = open_source(f"{tmp_path}/a/fold_0-*.tfrecord", tmp_path / "scratch")
    assert alone.splits == ()  # type: ignore[attr-defined]
