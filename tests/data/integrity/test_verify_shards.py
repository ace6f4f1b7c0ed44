"""`verify_shards` finds every kind of damage, and names the place."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tenfold.data.errors import UserError
from tenfold.data.format.manifest import manifest_to_json
from tenfold.data.format.tfrecord import frame
from tenfold.data.integrity.verify_shards import damaged_shards, verify_shards
from tenfold.data.planning.layout import LayoutPolicy
from tenfold.data.storage.read_manifest import read_manifest
from tenfold.data.writing.write_shards import write_shards

SHARD = "train-00001-of-00004.tfrecord"


@pytest.fixture
def shards(make_class_folder: Callable[..., Path], tmp_path: Path) -> Path:
    source, output = make_class_folder(classes=2, each=9), tmp_path / "out"
    write_shards(str(source), str(output), policy=LayoutPolicy(num_workers=4))
    return output


def problems(folder: Path, processes: int = 1) -> tuple[str, ...]:
    return verify_shards(str(folder), read_manifest(str(folder)), processes=processes).problems


def test_sound_shards_have_no_problems(shards: Path) -> None:
    for processes in (1, 2):
        found = verify_shards(str(shards), read_manifest(str(shards)), processes=processes)
        assert not found.problems
        assert (found.shards, found.records) == (4, 17)
        assert found.bytes == sum(path.stat().st_size for path in shards.glob("*.tfrecord"))


def test_any_flipped_byte_names_its_record(shards: Path) -> None:
    path = shards / SHARD
    sound = path.read_bytes()
    starts = record_starts(sound)
    assert len(starts) == 4
    for position in range(len(sound)):
        damaged = bytearray(sound)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        index = max(i for i, start in enumerate(starts) if start <= position)
        found = problems(shards)
        assert found[0].startswith(f"{SHARD}: record {index} at byte {starts[index]}: "), found


def record_starts(data: bytes) -> list[int]:
    starts, offset = [], 0
    while offset < len(data):
        starts.append(offset)
        offset += 16 + int.from_bytes(data[offset : offset + 8], "little")
    return starts


def cut_inside(folder: Path) -> str:
    path = folder / SHARD
    os.truncate(path, path.stat().st_size - 10)
    return f"{SHARD}: record 3 at byte"


def cut_between(folder: Path) -> str:
    # The file ends between two records; TensorFlow reads it without an error.
    path = folder / SHARD
    os.truncate(path, record_starts(path.read_bytes())[-1])
    return "the manifest says"


def missing(folder: Path) -> str:
    (folder / SHARD).unlink()
    return f"{SHARD}: it is missing"


def swapped(folder: Path) -> str:
    other = folder / "train-00002-of-00004.tfrecord"
    data = other.read_bytes()
    shutil.move(folder / SHARD, other)
    (folder / SHARD).write_bytes(data)
    return f"{SHARD}: it holds the content of {other.name}"


def forged(folder: Path) -> str:
    # The first record gets other content of the same length, with sound checksums.
    path = folder / SHARD
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    path.write_bytes(frame(bytes(length)) + data[16 + length :])
    return "not those of the manifest"


def reordered(folder: Path) -> str:
    # The same records in another order: sizes and the sum of fingerprints stay as they were.
    path = folder / SHARD
    data = path.read_bytes()
    second = record_starts(data)[1]
    path.write_bytes(data[second:] + data[:second])
    return "not those of the manifest (CRC32C)"


def longer(folder: Path) -> str:
    with open(folder / SHARD, "ab") as file:
        file.write(frame(b"more"))
    return "the manifest says"


def foreign(folder: Path) -> str:
    shutil.copy(folder / SHARD, folder / "train-00001-of-00005.tfrecord")
    return "train-00001-of-00005.tfrecord: it is not part"


@pytest.mark.parametrize(
    "damage", [cut_inside, cut_between, missing, swapped, forged, reordered, longer, foreign]
)
def test_damage_is_reported(damage: Callable[[Path], str], shards: Path) -> None:
    words = damage(shards)
    found = problems(shards, processes=2)
    assert words in found[0], found
    assert damaged_shards(found) == (2 if damage is swapped else 1)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('"kind": "int64"', '"kind": "float"', "record 0 has another kind or shape of feature"),
        ('"name": "image"', '"name": "photo"', "record 0 has the features image, label"),
        ('"quarantined": 1', '"quarantined": 7', "quarantine.jsonl: it lists 1 records"),
    ],
)
def test_manifest_unlike_its_records_is_reported(
    old: str, new: str, problem: str, shards: Path
) -> None:
    manifest = read_manifest(str(shards))
    document = replace(manifest, quarantined=1, splits=tuple(
        replace(split, label_counts=()) for split in manifest.splits
    ))  # fmt: skip
    text = manifest_to_json(document)
    (shards / "manifest.json").write_text(text)
    (shards / "quarantine.jsonl").write_text("{}\n")
    assert problems(shards) == ()
    assert old in text
    (shards / "manifest.json").write_text(text.replace(old, new))
    assert problem in problems(shards)[0]


def test_label_counts_are_recounted(shards: Path) -> None:
    manifest = read_manifest(str(shards))
    split = manifest.splits[0]
    first, second, *others = split.label_counts
    assert first
    counts = (first - 1, second + 1, *others)
    forged = replace(manifest, splits=(replace(split, label_counts=counts), *manifest.splits[1:]))
    (shards / "manifest.json").write_text(manifest_to_json(forged))
    (problem,) = problems(shards, processes=2)
    assert problem == (
        f"manifest.json: label_counts of split '{split.name}' state {first - 1:,} records of "
        f"label 0, its shards hold {first:,}: restore the manifest, or write the data set again"
    )
    assert damaged_shards([problem]) == 0


@pytest.mark.parametrize("name", ["../train-00001-of-00004.tfrecord", "/etc/passwd", "a/b"])
def test_manifest_with_foreign_paths_is_refused(name: str, shards: Path) -> None:
    manifest = shards / "manifest.json"
    manifest.write_text(manifest.read_text().replace(SHARD, name))
    with pytest.raises(UserError, match="damaged or foreign"):
        read_manifest(str(shards))
