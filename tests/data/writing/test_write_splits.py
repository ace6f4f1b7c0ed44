"""Splits on the way from a source to its shards, and what they have in common."""

import csv
from array import array
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenfold.data import LayoutPolicy, UserError, WriteOptions, write_shards
from tenfold.data.format.example import decode_example
from tenfold.data.format.manifest import (
    Manifest,
    SharedRecords,
    manifest_from_json,
    manifest_to_json,
)
from tenfold.data.format.tfrecord import read_records
from tenfold.data.writing.splits import compare_splits

OPTIONS = WriteOptions(policy=LayoutPolicy(num_workers=2), processes=1)


def values_of(folder: Path, manifest: Manifest, feature: str) -> dict[str, list[Any]]:
    """Return the values of a scalar feature by split, sorted."""
    found: dict[str, list[Any]] = {}
    for split in manifest.splits:
        values = found.setdefault(split.name, [])
        for shard in split.shards:
            with open(folder / shard.name, "rb") as file:
                for _, payload in read_records(file, shard.bytes):
                    values += decode_example(payload)[feature][1]
        values.sort()
    return found


def write(source: Any, output: Path, **options: Any) -> Manifest:
    """Write twice, with one process and with three: the same bytes."""
    result = write_shards(source, output, options=replace(OPTIONS, **options))
    assert result.manifest is not None
    again = output.with_name(output.name + " again")
    write_shards(source, again, options=replace(OPTIONS, **options, processes=3))
    for path in output.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes(), path
    assert manifest_from_json(manifest_to_json(result.manifest)) == result.manifest
    return result.manifest


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A table of 60 rows, 6 of each of 10 patients, a third of them of class b."""
    path = tmp_path / "rows.csv"
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["x", "label", "patient", "part"])
        for row in range(60):
            part = ("train", "train", "val", "test")[row % 4]
            writer.writerow([row, "b" if row % 3 == 0 else "a", f"p{row // 6}", part])
    return path


def test_split_feature_divides_a_table(table: Path, tmp_path: Path) -> None:
    manifest = write(str(table), tmp_path / "out", split_feature="part")
    found = values_of(tmp_path / "out", manifest, "x")
    assert list(found) == ["train", "validation", "test"]
    assert found["validation"] == list(range(2, 60, 4))
    assert found["test"] == list(range(3, 60, 4))
    assert "splits: train, validation, test, by the values of 'part'" in manifest.notes


def test_groups_and_strata_of_a_table(table: Path, tmp_path: Path) -> None:
    splits = {"train": 0.7, "val": 0.3}
    manifest = write(str(table), tmp_path / "by", splits=splits, split_by="patient")
    found = values_of(tmp_path / "by", manifest, "patient")
    assert not set(found["train"]) & set(found["validation"])
    assert (len(found["train"]), len(found["validation"])) == (42, 18)
    manifest = write(str(table), tmp_path / "st", splits=splits, stratify="label")
    assert [split.label_counts for split in manifest.splits] == [(28, 14), (12, 6)]
    # Another rule is another layout: shards never mix.
    with pytest.raises(UserError, match="made with a different layout"):
        write_shards(str(table), tmp_path / "st", options=replace(OPTIONS, splits=splits))


def test_unknown_feature_is_named(table: Path, tmp_path: Path) -> None:
    options = replace(OPTIONS, split_feature="prat")
    with pytest.raises(UserError, match="no record has a feature 'prat': did you mean 'part'"):
        write_shards(str(table), tmp_path / "out", options=options)


def test_sources_of_splits_and_their_duplicates(table: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    lines = table.read_text().splitlines()
    other.write_text("\n".join([lines[0], *lines[5:12], "99,c,p99,val"]) + "\n")
    manifest = write({"train": str(table), "val": str(other)}, tmp_path / "out")
    found = values_of(tmp_path / "out", manifest, "x")
    assert found == {"train": list(range(60)), "validation": [*range(4, 11), 99]}
    # The classes are those of both sources, and the seven equal rows are counted.
    assert manifest.label_names == ("a", "b", "c")
    assert [split.label_counts for split in manifest.splits] == [(40, 20, 0), (5, 2, 1)]
    assert manifest.shared_records == (SharedRecords("validation", "train", 7),)


def test_split_folders_keep_their_splits(
    make_class_folder: Callable[..., Path], tmp_path: Path
) -> None:
    for name, each in (("train", 9), ("val", 4)):
        make_class_folder(name=f"tree/{name}", classes=2, each=each)
    make_class_folder(name="tree/test", classes=3, each=3)
    manifest = write(str(tmp_path / "tree"), tmp_path / "out")
    assert manifest.label_names == ("class 0", "class 1", "class 2")
    counts = {split.name: split.label_counts for split in manifest.splits}
    listed = {
        split: tuple(
            len(list((tmp_path / "tree" / folder).glob(f"class {label}/*.png")))
            for label in range(3)
        )
        for split, folder in (("train", "train"), ("validation", "val"), ("test", "test"))
    }
    assert counts == listed


def test_last_of_several_writers_counts_duplicates(table: Path, tmp_path: Path) -> None:
    source = {"train": str(table), "test": str(table)}
    for index in range(2):
        options = replace(OPTIONS, writer_index=index, num_writers=2)
        result = write_shards(source, tmp_path / "out", options=options)
    assert result.manifest is not None
    assert result.manifest.shared_records == (SharedRecords("test", "train", 60),)
    assert not (tmp_path / "out" / ".tenfold-write").exists()


@given(
    st.dictionaries(
        st.sampled_from(["a", "b", "c"]), st.lists(st.integers(0, 5), max_size=8), min_size=2
    )
)
def test_few_and_many_records_are_compared_alike(numbers: dict[str, list[int]]) -> None:
    joined = {name: bytearray(array("Q", found).tobytes()) for name, found in numbers.items()}
    expected = {
        (earlier, later): sum(number in numbers[earlier] for number in numbers[later])
        for earlier, later in combinations(numbers, 2)
    }
    assert dict(compare_splits._count_small(joined)) == expected
    assert dict(compare_splits._count_large(joined)) == expected
