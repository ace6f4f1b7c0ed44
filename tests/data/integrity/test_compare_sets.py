"""Data sets compared by features, classes and values, and statistics shown as a table."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tenfold.data.errors import UserError
from tenfold.data.format.manifest import Manifest, manifest_from_json, manifest_to_json
from tenfold.data.format.statistics.feature_statistics import FeatureStatistics
from tenfold.data.integrity.compare_sets import compare_sets
from tenfold.data.integrity.show_statistics import bars, statistics_lines
from tenfold.data.planning.layout import LayoutPolicy
from tenfold.data.writing.write_shards import write_shards


def numbers(seed: int, count: int = 3_000, mean: float = 0.0) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    return [
        {"age": int(age), "v": float(x), "label": ["cat", "dog"][int(label)], "t": "a" * int(age)}
        for age, x, label in zip(
            rng.integers(18, 60, count),
            rng.normal(mean, 1, count),
            rng.integers(0, 2, count),
            strict=True,
        )
    ]


@pytest.fixture(scope="module")
def write(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Manifest]:
    def made(rows: list[dict[str, Any]]) -> Manifest:
        folder = tmp_path_factory.mktemp("set")
        manifest = write_shards(rows, folder, policy=LayoutPolicy(num_workers=1)).manifest
        assert manifest is not None
        return manifest

    return made


def differences(first: Manifest, second: Manifest) -> list[str]:
    return list(compare_sets(first, second, first.splits[0], second.splits[0]))


def test_samples_of_one_distribution_do_not_differ(write: Callable[..., Manifest]) -> None:
    assert differences(write(numbers(1)), write(numbers(2))) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda row: {**row, "v": row["v"] + 1}, ["v: the distribution differs by", "; mean "]),
        (lambda row: {**row, "age": row["age"] * 10}, ["age: the distribution differs"]),
        (lambda row: {**row, "v": str(row["v"])}, ["v: float scalar, against bytes scalar"]),
        (lambda row: {**row, "more": 1}, ["more: no such feature, against int64 scalar"]),
        (lambda row: {**row, "t": row["t"] * 3}, ["t: ", " bytes a record, against "]),
        (
            lambda row: {**row, "label": "ant" if row["label"] == "cat" else "cat"},
            [
                "classes only here: 'dog'",
                "only there: 'ant'",
                "with other numbers: 1, as 'cat', 0",
            ],
        ),
        (
            lambda row: {**row, "label": "cat" if row["age"] > 20 else row["label"]},
            ["shares of the classes: ", "of the records differ; class 'cat' has"],
        ),
    ],
)
def test_differences_are_named(
    change: Callable[[dict[str, Any]], Any], words: list[str], write: Callable[..., Manifest]
) -> None:
    rows = numbers(1)
    found = "\n".join(differences(write(rows), write([change(row) for row in rows])))
    assert all(word in found for word in words), found


def test_images_are_compared_by_size(write: Callable[..., Manifest]) -> None:
    small = [{"id": n, "image": np.zeros((8, 8 + n % 2, 3), np.uint8)} for n in range(20)]
    large = [{"id": n, "image": np.full((16, 8 + n % 2, 3), n, np.uint8)} for n in range(20)]
    first, second = write(small), write(large)
    assert "image: heights of 8 to 8 pixels, against 16 to 16" in differences(first, second)
    line = statistics_lines(first, first.splits[0])[-1]
    assert line.endswith("8 × 8 to 9 pixels")


def test_statistics_are_shown_as_a_table(write: Callable[..., Manifest]) -> None:
    rows = [{"a": float(n), "label": n % 2, "v": [1, 2], "t": "xy"} for n in range(100)]
    manifest = write(rows)
    lines = statistics_lines(manifest, manifest.splits[0])
    assert [line.split() for line in lines[:2]] == [
        ["statistics", "of", "train,", "100", "records"],
        ["missing", "min", "mean", "max", "std", "different"],
    ]
    a, label, t, v = (line.split() for line in lines[2:])
    assert a[:7] == ["a", "0", "0", "49.5", "99", "28.87", "100"]
    assert set(a[7]) <= set("▆▇█")
    assert len(a[7]) == 10
    assert label[6:] == ["2", "'0'", "50", "%,", "'1'", "50", "%"]
    assert t == ["t", "0", "2", "B", "2", "B", "2", "B", "1", "'xy'", "100", "%"]
    assert v[1:5] == ["0", "1", "1.5", "2"]
    assert " ".join(v).endswith("2 values a record")
    without = replace(manifest.splits[0], statistics=None)
    assert statistics_lines(manifest, without) == []
    old = replace(manifest, splits=(without,))
    assert manifest_from_json(manifest_to_json(old)) == old
    assert differences(old, manifest) == [
        "statistics: the first data set has none: write it again to compare values"
    ]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"records": 30,\n    "features"', '"records": 31,\n    "features"'),
        ('"name": "a",\n      "minimum"', '"name": "z",\n      "minimum"'),
        ('"maximum": 29.0', '"maximum": 1e999'),
        ('"maximum": 29.0', '"maximum": 30'),
        ('"mean": 14.5,', ""),
        ('"distinct": 30', '"distinct": -1'),
        ('"distinct": 30', '"unheard": 1'),
    ],
)
def test_damaged_statistics_are_refused(
    old: str, new: str, write: Callable[..., Manifest]
) -> None:
    text = manifest_to_json(write([{"a": float(n)} for n in range(30)]))
    assert old in text
    with pytest.raises(UserError):
        manifest_from_json(text.replace(old, new))


def test_bars_show_the_shape() -> None:
    found = FeatureStatistics("a", quantiles=tuple(float(n) ** 3 for n in range(21)))
    assert bars(found)[0] == "█"
    assert list(bars(found)) == sorted(bars(found), reverse=True)
    assert bars(FeatureStatistics("a", quantiles=(1.0,) * 21)) == "█"
