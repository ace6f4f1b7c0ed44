"""A source for each split: recognised folders, and the classes and features of all of them."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tenfold.data.errors import UserError
from tenfold.data.format.example import decode_example
from tenfold.data.planning.splits.own_splits import OwnSplit
from tenfold.data.planning.splits.split_names import split_folders
from tenfold.data.sources.base import Source
from tenfold.data.sources.open_source import open_source
from tenfold.data.writing.splits.feature_values import feature_values


@pytest.mark.parametrize(
    ("folders", "splits"),
    [
        (["train", "val", "test"], {"train": "train", "validation": "val", "test": "test"}),
        (["Test", "Training"], {"train": "Training", "test": "Test"}),
        (["valid"], {"validation": "valid"}),
        (["cat", "dog"], {}),
        (["train", "bus", "car"], {}),  # a class may be called train
        ([], {}),
    ],
)
def test_folders_of_splits_are_recognised(folders: list[str], splits: dict[str, str]) -> None:
    assert split_folders("data", folders) == splits
    assert list(split_folders("data", folders)) == list(splits)  # train comes first


@pytest.mark.parametrize(
    ("folders", "words"),
    [
        (
            ["train", "test", "extra"],
            r"the folders test, train are splits, 'extra' is none: name the source of each, "
            r"--split=test=data/test,train=data/train",
        ),
        (["train", "val", "dev"], "the folders 'dev' and 'val' are both split 'validation'"),
    ],
)
def test_ambiguous_folders_are_refused(folders: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        split_folders("data", folders)


def joined(tmp_path: Path, specs: dict[str, Any]) -> Source:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return open_source(specs, scratch)


def table(tmp_path: Path, name: str, *lines: str) -> str:
    (tmp_path / name).write_text("\n".join(lines) + "\n")
    return str(tmp_path / name)


def test_records_of_all_splits_keep_their_classes(tmp_path: Path) -> None:
    source = joined(
        tmp_path,
        {
            "train": table(tmp_path, "a.csv", "x,label", "1,cat", "2,emu", "3,cat"),
            "dev": table(tmp_path, "b.csv", "x,label", "4,emu", "5,dog"),
        },
    )
    assert source.stats.label_names == ("cat", "dog", "emu")
    assert source.splits == (OwnSplit("train", 3), OwnSplit("validation", 2))  # type: ignore[attr-defined]
    copy = pickle.loads(pickle.dumps(source))  # noqa: S301 - our own pickle
    for index, (x, label) in enumerate([(1, 0), (2, 2), (3, 0), (4, 2), (5, 1)]):
        for one in (source, copy):
            encoded = one.encoded(index)
            stored = decode_example(encoded.payload)
            assert (stored["x"][1], stored["label"][1], encoded.label) == ([x], [label], label)
            assert int(np.ravel(one.features(index)["label"])[0]) == label
    labels = feature_values(source, "label")
    assert [labels.values[code] for code in labels.codes] == [0, 2, 0, 2, 1]
    assert "b.csv" in source.name(3)


def test_equal_classes_leave_the_records_unchanged(
    make_class_folder: Callable[..., Path], tmp_path: Path
) -> None:
    folders = [make_class_folder(name=f"tree/{name}", classes=2) for name in ("train", "test")]
    source = joined(tmp_path, {"all": str(tmp_path / "tree" / "test"), "val": str(folders[0])})
    (tmp_path / "other").mkdir()
    part = open_source(str(folders[0]), tmp_path / "other")
    first = source.splits[0].examples  # type: ignore[attr-defined]
    for index in range(part.stats.num_examples):
        assert source.encoded(first + index) == part.encoded(index)
    labels = feature_values(source, "label")
    assert [labels.values[code] for code in labels.codes] == [
        source.encoded(index).label for index in range(source.stats.num_examples)
    ]


def test_unlike_splits_are_refused_or_told(tmp_path: Path) -> None:
    plain = table(tmp_path, "a.csv", "x,y_,label", "1,2,cat", "2,2,dog")
    for name, lines, words in (
        ("no label", ("x,y_", "1,2"), r"'test' has no label, 'train' has: .*, --split=train=…"),
        ("float", ("x,y_,label", "1.5,1,cat"), "'x' is of kind float in split 'test', but int64"),
    ):
        folder = tmp_path / name
        folder.mkdir()
        with pytest.raises(UserError, match=words):
            joined(folder, {"train": plain, "test": table(folder, "b.csv", *lines)})
    source = joined(
        tmp_path, {"train": plain, "test": table(tmp_path, "b.csv", "x,label", "1,cat")}
    )
    assert source.notes == ("split 'test' has no feature 'y_'",)
    assert source.optional_features == {"y_"}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("specs", "words"),
    [
        ({}, "is an empty dict"),
        ({"val": "x.csv", "dev": "x.csv"}, "split 'validation' has two sources"),
        ({"no/name": "x.csv"}, "no/name"),
        ({"train": "nowhere.csv"}, "nowhere.csv"),
    ],
)
def test_bad_sources_of_splits_are_named(
    specs: dict[str, Any], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    table(tmp_path, "x.csv", "x", "1")
    with pytest.raises(UserError, match=words):
        joined(tmp_path, specs)
