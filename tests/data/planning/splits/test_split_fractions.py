"""The splits that users ask for: their text, and the number of examples that each gets."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenfold.data.errors import UserError
from tenfold.data.planning.splits.split_fractions import (
    SplitFraction,
    group_splits,
    parse_split_sources,
    parse_splits,
    split_counts,
    stratum_counts,
)


@pytest.mark.parametrize(
    ("text", "splits"),
    [
        ("train", [("train", None)]),
        ("", []),
        ("train:0.9,val:0.1,test", [("train", 0.9), ("validation", 0.1), ("test", None)]),
        ("train:0.9,validation:0.1", [("train", 0.9), ("validation", 0.1)]),
        (
            "train:0.7, test:0.1, val_2:0.2",
            [("train", 0.7), ("test", 0.1), ("val_2", 0.2)],
        ),
        ("Training:0.7,val:0.2,dev_2:0.1", [("train", 0.7), ("validation", 0.2), ("dev_2", 0.1)]),
    ],
)
def test_splits_are_parsed(text: str, splits: list[tuple[str, float | None]]) -> None:
    assert parse_splits(text) == tuple(SplitFraction(*split) for split in splits)


@pytest.mark.parametrize(
    "text",
    [
        ",",
        "train:0.9",
        "train:x",
        "train:0.5,train:0.5",
        "val:0.5,dev:0.5",
        "../a:1",
        "a:1.5",
        "a:-1,b:2",
        "a:0,b:1",
    ],
)
def test_bad_splits_are_refused(text: str) -> None:
    with pytest.raises(UserError):
        parse_splits(text)


@given(st.integers(100, 10**9), st.lists(st.integers(1, 20), min_size=1, max_size=5))
def test_split_counts_add_up(examples: int, weights: list[int]) -> None:
    splits = [SplitFraction(f"s{i}", w / sum(weights)) for i, w in enumerate(weights)]
    counts = split_counts(examples, splits)
    assert sum(counts) == examples
    for count, split in zip(counts, splits, strict=True):
        assert abs(count - examples * (split.fraction or 0)) <= 1


def test_empty_split_is_refused() -> None:
    with pytest.raises(UserError, match="split 'b' gets none of 10 examples"):
        split_counts(10, parse_splits("a:0.99,b:0.01"))


@pytest.mark.parametrize(
    ("text", "sources"),
    [
        ("train:0.9,validation:0.1", {}),
        ("train", {}),
        ("", {}),
        ("train=a.csv", {"train": "a.csv"}),
        (
            "train=a,b/*.csv, val=gs://b/x?y=1,z",
            {"train": "a,b/*.csv", "validation": "gs://b/x?y=1,z"},
        ),
        (
            "train=tfds:mnist:train,test=mine.py:f",
            {"train": "tfds:mnist:train", "test": "mine.py:f"},
        ),
    ],
)
def test_sources_of_splits_are_parsed(text: str, sources: dict[str, str]) -> None:
    assert parse_split_sources(text) == sources


@pytest.mark.parametrize("text", ["train=", "train=a,train=b", "val=a,dev=b", "train=,test=b"])
def test_bad_sources_of_splits_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="--split="):
        parse_split_sources(text)


FRACTIONS = st.lists(st.integers(1, 20), min_size=1, max_size=4).map(
    lambda weights: [SplitFraction(f"s{i}", w / sum(weights)) for i, w in enumerate(weights)]
)


@given(st.lists(st.integers(1, 50), min_size=4, max_size=60), FRACTIONS, st.integers(0, 3))
def test_groups_approach_the_fractions(
    sizes: list[int], splits: list[SplitFraction], seed: int
) -> None:
    chosen = group_splits(sizes, splits, seed=seed)
    assert set(chosen) == set(range(len(splits)))  # no split is empty
    got = [0] * len(splits)
    for size, index in zip(sizes, chosen, strict=True):
        got[index] += size
    assert sum(got) == sum(sizes)
    for split, count in zip(splits, got, strict=True):
        # Off by no more than the largest group, but for a split filled by the last groups.
        missing = sum(sizes) * (split.fraction or 0) - count
        assert missing <= max(sizes) * len(splits)


def test_many_small_groups_meet_the_fractions() -> None:
    draw = random.Random(0)
    sizes = [draw.randint(1, 30) for _ in range(500)]
    splits = parse_splits("train:0.8,validation:0.1,test:0.1")
    chosen = group_splits(sizes, splits, seed=1)
    got = [sum(s for s, c in zip(sizes, chosen, strict=True) if c == i) for i in range(3)]
    assert [round(count / sum(sizes), 3) for count in got] == [0.8, 0.1, 0.1]
    # The seed decides among groups of equal size, and large groups are not all in one split.
    assert chosen != group_splits(sizes, splits, seed=2)
    assert {c for s, c in zip(sizes, chosen, strict=True) if s == 30} == {0, 1, 2}


def test_one_huge_group_still_fills_each_split() -> None:
    assert group_splits([50, 1], parse_splits("a:0.1,b:0.9"), seed=0) in [(1, 0)]
    with pytest.raises(UserError, match="1 group cannot fill 2 splits"):
        group_splits([50], parse_splits("a:0.1,b:0.9"), seed=0)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=30), FRACTIONS)
def test_strata_are_divided_alike(sizes: list[int], splits: list[SplitFraction]) -> None:
    try:
        rows = stratum_counts(sizes, splits)
    except UserError:
        assert sum(sizes) < 20 * len(splits) * len(splits)
        return
    for size, row in zip(sizes, rows, strict=True):
        assert sum(row) == size
        for split, count in zip(splits, row, strict=True):
            assert abs(count - size * (split.fraction or 0)) < 1
    for index, split in enumerate(splits):
        total = sum(row[index] for row in rows)
        assert abs(total - sum(sizes) * (split.fraction or 0)) <= len(splits)
