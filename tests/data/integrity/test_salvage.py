"""Damaged shards: errors name the record, and salvage keeps the sound records."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenfold.data.errors import JobError, UserError
from tenfold.data.format.manifest import Feature
from tenfold.data.format.tfrecord import frame
from tenfold.data.integrity.salvage import (
    check_sizes,
    find_damaged_record,
    load_salvage,
    salvage_shards,
    scan_records,
)
from tenfold.data.reading.batches import training_batches
from tenfold.data.reading.locating.read_errors import READ_ERRORS, explain_read_error
from tenfold.data.reading.read_config import ReadConfig
from tenfold.data.reading.read_options import BEGINNING, ReadOptions
from tenfold.data.reading.records.record_check import RecordCheck
from tenfold.data.storage.read_manifest import read_manifest

COUNT, BATCH = 120, 12
MakeShards = Callable[..., Path]

# Offset of the damaged byte in its frame; negative from the end.
PLACES = {"length": 1, "header checksum": 9, "payload": 14, "footer": -2}


@pytest.fixture
def shards(make_id_shards: MakeShards) -> Path:
    """120 records in 4 shards, 2 lanes."""
    return make_id_shards(COUNT, num_shards=4, num_lanes=2)


def bounds(path: Path) -> list[tuple[int, int]]:
    return scan_records(path.read_bytes())[0]


def damage(path: Path, indices: list[int], position: int) -> None:
    """Flip a bit of some records, at `position` in their frames as in PLACES."""
    data = bytearray(path.read_bytes())
    frames = bounds(path)
    for index in indices:
        begin, end = frames[index]
        data[(end if position < 0 else begin) + position] ^= 0x40
    path.write_bytes(data)


def shard(folder: Path, index: int) -> Path:
    return sorted(folder.glob("*.tfrecord"))[index]


def config_of(folder: Path, salvaged: Any = None) -> ReadConfig:
    manifest = salvaged.manifest if salvaged else read_manifest(str(folder))
    return ReadConfig(
        folder=str(folder),
        manifest=manifest,
        split="train",
        global_batch_size=BATCH,
        options=ReadOptions(threads=2),
        moved=salvaged.moved if salvaged else {},
    )


@given(
    payloads=st.lists(st.binary(max_size=40), min_size=1, max_size=12),
    data=st.data(),
)
def test_scan_loses_only_damaged_records(payloads: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(map(frame, payloads))
    sound, damaged = scan_records(whole)
    assert [whole[b + 12 : e - 4] for b, e in sound] == payloads
    assert not damaged
    position = data.draw(st.integers(0, len(whole) - 1))
    bit = 1 << data.draw(st.integers(0, 7))
    broken = whole[:position] + bytes([whole[position] ^ bit]) + whole[position + 1 :]
    hit = next(index for index, (begin, end) in enumerate(sound) if begin <= position < end)
    left, errors = scan_records(broken)
    assert [broken[b + 12 : e - 4] for b, e in left] == payloads[:hit] + payloads[hit + 1 :]
    assert [(error.index, error.offset) for error in errors] == [(hit, sound[hit][0])]


@given(payloads=st.lists(st.binary(max_size=40), min_size=1, max_size=8), data=st.data())
def test_scan_keeps_whole_records_of_cut_file(payloads: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(map(frame, payloads))
    cut = data.draw(st.integers(0, len(whole)))
    ends = [end for _, end in scan_records(whole)[0]]
    left, errors = scan_records(whole[:cut])
    assert len(left) == sum(end <= cut for end in ends)
    assert len(errors) == (cut > 0 and cut not in ends)


@pytest.mark.parametrize("place", PLACES)
def test_read_error_names_damaged_record(shards: Path, place: str) -> None:
    offset = bounds(shard(shards, 2))[5][0]
    damage(shard(shards, 2), [5], PLACES[place])
    config = config_of(shards)
    with pytest.raises(READ_ERRORS):
        list(training_batches(config, epochs=1))
    explained = explain_read_error(config, start=BEGINNING, steps=1)
    assert isinstance(explained, JobError)
    assert f"train-00002-of-00004.tfrecord record 5 at byte {offset:,}: " in str(explained)
    assert "--on_bad_record=skip" in str(explained)


def test_unparsable_record_is_named(make_shards: MakeShards) -> None:
    examples: list[dict[str, Any]] = [{"id": index, "label": 0} for index in range(COUNT)]
    examples[50] = {"id": 50}
    folder = make_shards(examples, num_shards=4, num_lanes=2)
    config = config_of(folder)
    with pytest.raises(READ_ERRORS):
        list(training_batches(config, epochs=1))
    steps = config.shards.steps_per_epoch
    explained = explain_read_error(config, start=BEGINNING, steps=steps)
    offset = bounds(shard(folder, 2))[12][0]
    # Example 50 is the 13th of shard 2.
    expected = f"train-00002-of-00004.tfrecord record 12 at byte {offset:,} is as it was written"
    assert expected in str(explained)


def test_unrelated_errors_are_not_explained(shards: Path) -> None:
    assert explain_read_error(config_of(shards), start=BEGINNING, steps=3) is None
    assert (
        find_damaged_record(str(shards), read_manifest(str(shards)).split("train").shards) is None
    )


def read_all(config: ReadConfig) -> tuple[list[int], int]:
    """Return the ids of all full steps, and the sum of fingerprints including the tail."""
    steps = config.shards.steps_per_epoch
    batches = list(training_batches(config, epochs=1, tail=True))
    ids = [int(number) for batch in batches[:steps] for number in batch.fed[0].numpy()]
    return ids, sum(int(batch.fingerprints.numpy().sum()) for batch in batches) % 2**64


@pytest.mark.parametrize("place", PLACES)
def test_salvage_drops_only_damaged_record(shards: Path, tmp_path: Path, place: str) -> None:
    damage(shard(shards, 2), [5], PLACES[place])
    damage(shard(shards, 1), [0, 29], PLACES[place])
    salvaged = salvage_shards(str(shards), str(tmp_path / "salvage"), max_bad_records=3)
    assert [(record.shard[6:11], record.index) for record in salvaged.bad_records] == [
        ("00001", 0),
        ("00001", 29),
        ("00002", 5),
    ]
    config = config_of(shards, salvaged)
    split = salvaged.manifest.split("train")
    assert split.num_records == COUNT - 3
    ids, fingerprint = read_all(config)
    lost = {0 * 4 + 1, 29 * 4 + 1, 5 * 4 + 2}
    assert len(set(ids)) == len(ids) == 9 * BATCH
    assert not lost & set(ids)
    assert fingerprint == split.fingerprint
    assert load_salvage(str(tmp_path / "salvage")) == salvaged


def test_cut_shard_reports_missing_records(shards: Path, tmp_path: Path) -> None:
    path = shard(shards, 3)
    begin, end = bounds(path)[27]
    path.write_bytes(path.read_bytes()[: end - 3])
    salvaged = salvage_shards(str(shards), str(tmp_path / "salvage"), max_bad_records=3)
    assert [record.index for record in salvaged.bad_records] == [27, 28, 29]
    assert "the file ends" in salvaged.bad_records[0].problem
    assert salvaged.bad_records[0].offset == begin
    assert salvaged.manifest.split("train").shards[3].records == 27


def test_salvage_of_sound_shards_moves_nothing(shards: Path, tmp_path: Path) -> None:
    salvaged = salvage_shards(str(shards), str(tmp_path / "salvage"), max_bad_records=0)
    assert (salvaged.bad_records, salvaged.moved) == ((), {})
    assert salvaged.manifest == read_manifest(str(shards))


def test_too_many_damaged_records_raise_job_error(shards: Path, tmp_path: Path) -> None:
    damage(shard(shards, 0), [1, 2], 14)
    with pytest.raises(
        JobError, match=r"at least 2 damaged records, more than --max_bad_records=1 .* record 2"
    ):
        salvage_shards(str(shards), str(tmp_path / "salvage"), max_bad_records=1)
    with pytest.raises(JobError, match="start the job again"):
        load_salvage(str(tmp_path / "salvage"))


def test_second_salvage_reuses_the_first(shards: Path, tmp_path: Path) -> None:
    damage(shard(shards, 0), [1], 14)
    into = str(tmp_path / "salvage")
    first = salvage_shards(str(shards), into, max_bad_records=9)
    damage(shard(shards, 3), [1], 14)
    assert salvage_shards(str(shards), into, max_bad_records=9) == first
    manifest = shards / "manifest.json"
    manifest.write_text(manifest.read_text() + " ")
    with pytest.raises(UserError, match="was made from other shards"):
        salvage_shards(str(shards), into, max_bad_records=9)


def test_check_sizes_finds_missing_and_cut_shards(shards: Path) -> None:
    infos = read_manifest(str(shards)).split("train").shards
    check_sizes(str(shards), infos)
    path = shard(shards, 1)
    data = path.read_bytes()
    path.write_bytes(data[: bounds(path)[-1][0]])
    with pytest.raises(JobError, match=r"train-00001-of-00004\.tfrecord has .* the manifest says"):
        check_sizes(str(shards), infos)
    path.unlink()
    with pytest.raises(JobError, match=r"train-00001-of-00004\.tfrecord is missing"):
        check_sizes(str(shards), infos)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("decoder", "processes"), [("tf", 1), ("turbo", 2)])
def test_salvage_drops_undecodable_images(
    make_shards: MakeShards, make_image: Callable[..., bytes], tmp_path: Path, decoder: str,
    processes: int,
) -> None:  # fmt: skip
    image = make_image(form="JPEG", mode="RGB", height=8, width=8)
    stray = image[:-2] + bytes(range(24)) + image[-2:]  # TensorFlow decodes it with a warning
    examples: list[dict[str, Any]] = [{"image": image, "label": n} for n in range(24)]
    examples[4]["image"] = stray
    examples[7]["image"] = image[:30]
    examples[13] = {"image": image}
    features = (Feature("image", "image", (8, 8, 3)), Feature("label", "int64", ()))
    folder = make_shards(examples, num_shards=2, num_lanes=1, features=features)
    damage(shard(folder, 1), [0], PLACES["payload"])
    salvaged = salvage_shards(
        str(folder), str(tmp_path / "salvage"), max_bad_records=3,
        check=RecordCheck(features, decoder=decoder), processes=processes,
    )  # fmt: skip
    offsets = [begin for begin, _ in bounds(shard(make_shards(
        examples, num_shards=2, num_lanes=1, features=features, name="sound"
    ), 1))]  # fmt: skip
    found = [(bad.shard[6:11], bad.index, bad.offset) for bad in salvaged.bad_records]
    assert found == [("00001", index, offsets[index]) for index in (0, 3, 6)]
    problems = [bad.problem for bad in salvaged.bad_records]
    assert problems[1].startswith("cannot be decoded: ")
    assert problems[2] == (
        "cannot be parsed: feature 'label' has 0 int64 values, the manifest says 1 int64"
    )
    config = replace(
        config_of(folder, salvaged), global_batch_size=3,
        options=ReadOptions(threads=2, decoder=decoder),
    )  # fmt: skip
    batches = list(training_batches(config, epochs=1, tail=True))
    labels = sorted(int(label) for batch in batches[:7] for label in batch.fed[1].numpy())
    assert labels == [n for n in range(24) if n not in (1, 7, 13)]
    prints = sum(int(batch.fingerprints.numpy().sum()) for batch in batches) % 2**64
    assert prints == salvaged.manifest.split("train").fingerprint
