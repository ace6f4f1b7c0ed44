"""Balanced classes: the multiples of records, the same on any number of workers."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tenfold.data.errors import UserError
from tenfold.data.format.manifest import Feature
from tenfold.data.planning.class_balance import class_weights, find_balance
from tenfold.data.reading.batches import training_batches
from tenfold.data.reading.locating.batch_records import global_batch_records
from tenfold.data.reading.read_config import ReadConfig, read_config
from tenfold.data.reading.read_options import BEGINNING, Position, ReadOptions, WorkerPlace
from tenfold.data.reading.receipts import make_receipt
from tenfold.data.storage.read_manifest import read_manifest

# Two of three records are of class 0, and one of 30 of class 2.
LABELS = [0] * 200 + [1] * 90 + [2] * 10
FEATURES = (Feature("id", "int64"), Feature("label", "int64"))
BATCH, EPOCHS = 24, 8


@pytest.fixture(scope="module")
def shards(write_shards: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    order = sorted(range(len(LABELS)), key=lambda number: number * 7919 % len(LABELS))
    examples = [{"id": number, "label": LABELS[number]} for number in order]
    return write_shards(
        tmp_path_factory.mktemp("balance") / "shards", examples, num_shards=8, num_lanes=4,
        features=FEATURES, label_counts=(200, 90, 10),
    )  # fmt: skip


def config_of(shards: Path, worker: int = 0, num_workers: int = 1) -> ReadConfig:
    return read_config(
        str(shards),
        split="train",
        global_batch_size=BATCH,
        place=WorkerPlace(worker, num_workers),
        options=ReadOptions(threads=2, shuffle_buffer_bytes=4_000, balance="label", seed=4),
    )


def steps_of(shards: Path, num_workers: int, start: Position = BEGINNING) -> list[list[int]]:
    """Return the ids of the records of each step, sorted."""
    parts = [
        training_batches(config_of(shards, worker, num_workers), start=start, epochs=EPOCHS)
        for worker in range(num_workers)
    ]
    return [
        sorted(int(number) for batch in step for number in batch.fed[0].numpy())
        for step in zip(*parts, strict=True)
    ]


@pytest.fixture(scope="module")
def whole(shards: Path) -> list[list[int]]:
    return steps_of(shards, 1)


def test_classes_are_equally_frequent(shards: Path, whole: list[list[int]]) -> None:
    assert len(whole) == EPOCHS * (len(LABELS) // BATCH)
    read = Counter(number for step in whole for number in step)
    by_class = [0, 0, 0]
    for number, count in read.items():
        by_class[LABELS[number]] += count
    assert all(abs(count / sum(by_class) - 1 / 3) < 0.03 for count in by_class), by_class
    copies = find_balance(read_manifest(str(shards)), "train", "label").copies
    assert copies == class_weights([200, 90, 10]) == (0.5, 300 / 270, 10.0)
    # Over the epochs every record is read nearly as often as its class-mates.
    frequent = [read[number] / EPOCHS for number in range(200)]
    assert min(frequent) > 0.1  # the end of a lane may be cut off
    assert max(frequent) < 0.8


def test_batches_are_equal_on_any_number_of_workers(shards: Path, whole: list[list[int]]) -> None:
    assert steps_of(shards, 3) == whole
    assert steps_of(shards, 4, Position(1, 5)) == whole[len(LABELS) // BATCH + 5 :]


def test_records_of_a_step_are_named(shards: Path, whole: list[list[int]]) -> None:
    names = global_batch_records(config_of(shards, 1, 2), Position(0, 3))
    order = sorted(range(len(LABELS)), key=lambda number: number * 7919 % len(LABELS))
    # Record i is the (i // 8)th of shard i % 8.
    places = [(int(name[6:11]), int(name.rpartition(" ")[2])) for name in names]
    assert sorted(order[shard + 8 * index] for shard, index in places) == whole[3]


def test_lane_with_few_copies_begins_again(make_shards: Callable[..., Path]) -> None:
    labels = [0] * 60 + [1] * 2  # a record of class 0 has about half a copy
    examples = [{"id": number, "label": label} for number, label in enumerate(labels)]
    shards = make_shards(
        examples, num_shards=31, num_lanes=31, features=FEATURES, label_counts=(60, 2)
    )
    config = replace(config_of(shards), global_batch_size=31)
    batches = list(training_batches(config, epochs=6))
    assert [len(batch.fingerprints) for batch in batches] == [31] * 12


def test_receipt_tells_the_multiples(shards: Path) -> None:
    split = read_manifest(str(shards)).split("train")
    balanced = (("cat", 0.5), ("dog", 300 / 270), ("emu", 10.0))
    receipt = make_receipt(split, records=288, fingerprint=7, expected=288, balanced=balanced)
    assert receipt.exact
    assert receipt.sentence() == (
        "288 of 288 records, balanced: records of 'emu' about 10 times, 'dog' about 1.11 times, "
        "'cat' about 0.5 times"
    )
    assert not replace(receipt, records=287).exact


def test_unknown_classes_are_refused(shards: Path) -> None:
    manifest = read_manifest(str(shards))
    with pytest.raises(UserError, match="counts the classes of 'label' alone; write"):
        find_balance(manifest, "train", "id")
    with pytest.raises(UserError, match="leave out remainder=pad"):
        ReadOptions(balance="label", remainder="pad")
