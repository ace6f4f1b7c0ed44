"""Transforms given to write_shards as functions and objects."""

import functools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tenfold.data import (
    LayoutPolicy,
    RecordSeed,
    UnusableRecord,
    UserError,
    WriteOptions,
    write_shards,
)
from tenfold.data.format.example import decode_example
from tenfold.data.format.tfrecord import read_records
from tenfold.data.transforms.chain import parse_chain
from tenfold.data.transforms.resize import Resize

OPTIONS = WriteOptions(policy=LayoutPolicy(num_workers=1), processes=2)
RECORDS = [{"value": number, "label": number % 2} for number in range(20)]


def double(features: dict[str, Any]) -> dict[str, Any]:
    return {**features, "value": 2 * features["value"]}


def drawn(features: dict[str, Any], rng: Any) -> dict[str, Any]:
    return {**features, "value": int(rng.integers(1000))}


class AddTo:
    """Adds `amount` to x in two copies of each example; odd values are unusable."""

    splits: frozenset[str] | None = None

    def __init__(self, amount: int, *, copies: int = 2) -> None:
        self.amount, self.copies = amount, copies
        self.key = f"{amount}"

    def apply(self, records: list[Any], seeds: list[RecordSeed]) -> list[Any]:
        return [
            UnusableRecord("value is odd")
            if record["value"] % 2
            else {**record, "value": self.amount + seed.copy}
            for record, seed in zip(records, seeds, strict=True)
        ]


class Other(AddTo):
    """Another class with the keys of AddTo."""


class DropsRecords(AddTo):
    def apply(self, records: list[Any], seeds: list[RecordSeed]) -> list[Any]:
        return records[1:]


class ReturnsText(AddTo):
    def apply(self, records: list[Any], seeds: list[RecordSeed]) -> list[Any]:
        return ["text"] * len(records)


def written(tmp_path: Path, *transforms: Any, **options: Any) -> list[int]:
    """Write RECORDS and return the values of x, sorted."""
    from dataclasses import replace

    output = tmp_path / "out"
    result = write_shards(
        RECORDS, output, options=replace(OPTIONS, **options), transforms=transforms
    )
    assert result.manifest is not None
    found = []
    for shard in result.manifest.split("train").shards:
        with open(output / shard.name, "rb") as file:
            found += [decode_example(data) for _, data in read_records(file, shard.bytes)]
    return sorted(record["value"][1][0] for record in found)


def test_function_transforms_every_record(tmp_path: Path) -> None:
    assert written(tmp_path, double) == list(range(0, 40, 2))


def test_function_and_its_name_have_one_key() -> None:
    assert parse_chain([double]).key == parse_chain([f"{__name__}:double"]).key
    assert parse_chain([double]).key != parse_chain([drawn]).key


def test_function_with_rng_repeats_by_seed(tmp_path: Path) -> None:
    first = written(tmp_path / "a", drawn)
    assert len(set(first)) > 10
    assert written(tmp_path / "b", drawn) == first
    assert written(tmp_path / "c", drawn, shuffle_seed=1) != first


def test_object_transforms_copies_and_skips_records(tmp_path: Path) -> None:
    values = written(tmp_path, AddTo(100), max_bad_records=20)
    assert values == [100] * 10 + [101] * 10


def test_texts_functions_and_objects_combine(
    make_class_folder: Callable[..., Path], tmp_path: Path
) -> None:
    source = str(make_class_folder(classes=2, each=3))
    steps = ("resize:5", see_pixels, Resize("resize:3"))
    result = write_shards(source, tmp_path / "out", options=OPTIONS, transforms=steps)
    assert result.manifest is not None
    shapes = {feature.name: feature.shape for feature in result.manifest.features}
    assert shapes == {"image": (3, 3, 1), "label": (), "height": ()}


def see_pixels(features: dict[str, Any]) -> dict[str, Any]:
    return {**features, "height": features["image"].shape[0]}


def test_object_of_built_in_class_has_the_texts_key() -> None:
    assert parse_chain([Resize("resize:8")]).key == parse_chain(["resize:8"]).key


def test_objects_of_two_classes_never_share_a_key() -> None:
    keys = {parse_chain([step]).key for step in (AddTo(1), AddTo(2), Other(1))}
    assert len(keys) == 3


def test_changed_object_is_not_mixed_with_old_shards(tmp_path: Path) -> None:
    written(tmp_path, AddTo(1), max_bad_records=20)
    with pytest.raises(UserError, match="different transforms"):
        written(tmp_path, AddTo(2), max_bad_records=20)


MODULE = "def change(features):\n    return {**features, 'value': features['value'] + %d}\n"


def test_edited_function_is_not_mixed_with_old_shards(tmp_path: Path) -> None:
    """The key follows the text of the function's file."""
    code = (
        "from tenfold.data import write_shards, UserError\nimport edited\n"
        "try:\n"
        "    records = [{'value': n} for n in range(8)]\n"
        "    done = write_shards(records, 'out', transforms=[edited.change])\n"
        "    print(done.written)\n"
        "except UserError as error:\n    print(error)\n"
    )

    def run(added: int) -> str:
        (tmp_path / "edited.py").write_text(MODULE % added)
        command = [sys.executable, "-B", "-c", code]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout

    assert run(1) == "4\n"
    assert run(1) == "0\n"
    assert "made with a different transforms" in run(2)


def nested() -> Any:
    def inside(features: dict[str, Any]) -> dict[str, Any]:
        return features

    return inside


class Unpicklable(AddTo):
    def __init__(self) -> None:
        super().__init__(1)
        self.handle = sys.stdout


@pytest.mark.parametrize(
    ("transform", "words"),
    [
        (lambda features: features, "at the top level of a module"),
        (nested(), "at the top level of a module"),
        (functools.partial(double), "is no function and has no key"),
        (AddTo, "is a class"),
        (Unpicklable(), "keep to attributes that pickle takes"),
        (AddTo(1, copies=0), "copies: it must be at least 1"),
        (3, "is no function"),
    ],
)
def test_unusable_transform_names_the_way_out(tmp_path: Path, transform: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        written(tmp_path, transform)


@pytest.mark.parametrize(
    ("transform", "words"),
    [(DropsRecords(1), r"\d+ results for \d+ records"), (ReturnsText(1), "a str")],
)
def test_wrong_result_of_an_object_names_it(tmp_path: Path, transform: Any, words: str) -> None:
    with pytest.raises(UserError, match=rf"{type(transform).__name__} returns {words}"):
        written(tmp_path, transform)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"splits": {"train": 0.5}}, "the fractions sum to 0.5"),
        ({"splits": {"val": 0.5, "dev": 0.5}}, "split 'validation' comes twice"),
        ({"split_by": "patient"}, "needs fractions"),
        ({"splits": {"train": 1.5}}, "above 0 and at most 1"),
        ({"splits": {"no/name": 1.0}}, "no/name"),
        ({"processes": -1}, "processes is -1"),
        ({"max_bad_records": -1}, "max_bad_records is -1"),
        ({"engine": "bean"}, "did you mean 'beam'"),
        ({"writer_index": 1}, "writers are numbered from 0"),
        ({"overwrite": True, "num_writers": 2}, "empty the output folder"),
    ],
)
def test_write_options_check_themselves(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        WriteOptions(**options)


def test_shorthands_replace_the_options(tmp_path: Path) -> None:
    policy = LayoutPolicy(num_workers=3)
    plan = write_shards(RECORDS, tmp_path / "out", policy=policy, shuffle_seed=5).plan
    assert (plan.num_lanes, plan.shuffle_seed) == (3, 5)
