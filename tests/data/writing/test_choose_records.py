"""Transforms that leave records out, or make several of one."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tenfold.data import (
    JobError,
    LayoutPolicy,
    RecordSeed,
    UnusableRecord,
    WriteOptions,
    write_shards,
)
from tenfold.data.format.example import decode_example
from tenfold.data.format.manifest import Manifest
from tenfold.data.format.tfrecord import read_records
from tenfold.data.transforms.chain import parse_chain

OPTIONS = WriteOptions(policy=LayoutPolicy(num_workers=2), processes=1)
RECORDS = [{"value": number, "label": number % 2} for number in range(40)]


def choose(features: dict[str, Any]) -> Any:
    """Keep values that are not 3 modulo 5; 0 modulo 10 becomes three records."""
    value = features["value"]
    if value % 5 == 3:
        return None
    if value % 10 == 0:
        return [{**features, "value": value + part / 10} for part in range(3)]
    return {**features, "value": float(value)}


def parts(features: dict[str, Any]) -> Iterator[dict[str, Any] | None]:
    yield features
    yield None
    yield features


def draw(features: dict[str, Any], rng: Any) -> dict[str, Any]:
    return {**features, "drawn": int(rng.integers(1 << 60))}


def nothing(features: dict[str, Any]) -> None:
    pass


def first_only(features: dict[str, Any]) -> Any:
    return features if features["value"] == 0 else None


def expected() -> list[float]:
    made = [choose(record) for record in RECORDS]
    flat = [item for one in made for item in (one if isinstance(one, list) else [one]) if item]
    return sorted(item["value"] for item in flat)


def stored(folder: Path, manifest: Manifest, feature: str = "value") -> list[Any]:
    found = []
    for split in manifest.splits:
        for shard in split.shards:
            with open(folder / shard.name, "rb") as file:
                payloads = [payload for _, payload in read_records(file, shard.bytes)]
            assert len(payloads) == shard.records
            found += [decode_example(payload)[feature][1][0] for payload in payloads]
    return found


def test_function_leaves_out_and_multiplies(tmp_path: Path) -> None:
    outputs = [tmp_path / "one", tmp_path / "three"]
    for output, processes in zip(outputs, (1, 3), strict=True):
        options = replace(OPTIONS, processes=processes, splits={"train": 0.5, "test": 0.5})
        result = write_shards(RECORDS, output, options=options, transforms=[choose])
    manifest = result.manifest
    assert manifest is not None
    assert stored(tmp_path / "one", manifest) == stored(tmp_path / "three", manifest)
    found = sorted(round(value, 1) for value in stored(tmp_path / "one", manifest))
    assert found == expected()
    assert (manifest.left_out, manifest.quarantined) == (8, 0)
    assert sum(sum(split.label_counts) for split in manifest.splits) == len(expected()) == 40
    # A finished write is found again.
    options = replace(OPTIONS, splits={"train": 0.5, "test": 0.5})
    assert write_shards(RECORDS, tmp_path / "one", options=options, transforms=[choose]).kept > 0


def test_left_out_records_are_no_broken_records(tmp_path: Path) -> None:
    class_ = Mixed()
    options = replace(OPTIONS, max_bad_records=3)
    manifest = write_shards(
        RECORDS, tmp_path / "out", options=options, transforms=[class_]
    ).manifest
    assert manifest is not None
    assert (manifest.left_out, manifest.quarantined) == (2, 3)
    assert sorted(stored(tmp_path / "out", manifest)) == [2, *range(2, 40 - 3)]


class Mixed:
    """Of 0 and 1 nothing; of 2 two records; the last three are unusable."""

    key, copies, splits = "1", 1, None

    def apply(self, records: list[Any], seeds: list[RecordSeed]) -> list[Any]:
        return [self.one(record) for record in records]

    def one(self, record: dict[str, Any]) -> Any:
        value = record["value"]
        if value < 2:
            return None if value else []
        if value == 2:
            return [record, None, record]
        return UnusableRecord("too large") if value >= 37 else record


def test_records_of_one_draw_different_numbers(tmp_path: Path) -> None:
    results = []
    for name, processes in (("a", 1), ("b", 3)):
        result = write_shards(
            RECORDS,
            tmp_path / name,
            options=replace(OPTIONS, processes=processes),
            transforms=[parts, draw],
        )
        assert result.manifest is not None
        results.append(stored(tmp_path / name, result.manifest, "drawn"))
    assert results[0] == results[1]
    assert len(set(results[0])) == 80


def test_chain_calls_later_steps_in_batches() -> None:
    """However many records an earlier step makes of one."""
    sizes = []

    class Counts:
        key, copies, splits = "1", 1, None

        def apply(self, records: list[Any], seeds: list[RecordSeed]) -> list[Any]:
            sizes.append(len(records))
            return records

    chain = replace(parse_chain([many]), steps=(*parse_chain([many]).steps, Counts()))
    made = chain.apply([{"value": 1}, {"value": 2}], [RecordSeed(0, 0, 0), RecordSeed(1, 0, 0)])
    assert [len(records) for records in made] == [50, 50]
    assert sum(sizes) == 100
    assert max(sizes) == 32


def many(features: dict[str, Any]) -> list[dict[str, Any]]:
    return [features] * 50


def test_function_that_returns_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="left out all 40 records of split 'train': None leaves"):
        write_shards(RECORDS, tmp_path / "out", options=OPTIONS, transforms=[nothing])
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_empty_lane_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="the other 1 do not fill 2 lanes; take fewer workers"):
        write_shards(RECORDS, tmp_path / "out", options=OPTIONS, transforms=[first_only])
    options = replace(OPTIONS, policy=LayoutPolicy(num_workers=1))
    result = write_shards(RECORDS, tmp_path / "one", options=options, transforms=[first_only])
    assert result.manifest is not None
    assert (result.manifest.left_out, result.manifest.splits[0].num_records) == (39, 1)


def test_plan_expects_the_chosen_records(tmp_path: Path) -> None:
    records = [{"value": number} for number in range(64)]
    options = replace(OPTIONS, dry_run=True)
    for function, expected_records in ((half, 32), (many, 3200)):
        plan = write_shards(records, tmp_path / "x", options=options, transforms=[function]).plan
        (split,) = plan.splits
        assert split.expected_records == plan.num_records == expected_records
        assert split.layout.total_bytes == pytest.approx(expected_records * 31, rel=0.2)


def half(features: dict[str, Any]) -> Any:
    return features if features["value"] % 4 < 2 else None
