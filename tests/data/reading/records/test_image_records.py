"""Batches of images read by record id equal those that TensorFlow's ops make."""

import io
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageFilter

from tenfold.data.errors import JobError
from tenfold.data.format.manifest import Feature
from tenfold.data.reading import batches as batches_module
from tenfold.data.reading.batches import evaluation_batches, open_reader, training_batches
from tenfold.data.reading.locating.read_errors import READ_ERRORS, explain_read_error
from tenfold.data.reading.read_config import ReadConfig
from tenfold.data.reading.read_config import read_config as open_config
from tenfold.data.reading.read_options import BEGINNING, Position, ReadOptions, WorkerPlace

COUNT, BATCH = 133, 12
FEATURES = (
    Feature("id", "int64", ()),
    Feature("image", "image", (20, 24, 3)),
    Feature("label", "int64", ()),
)
MakeShards = Callable[..., Path]


def image(number: int) -> bytes:
    noise = np.random.default_rng(number).integers(0, 256, (20, 24, 3), np.uint8)
    out = io.BytesIO()
    smooth = Image.fromarray(noise).filter(ImageFilter.GaussianBlur(2))
    smooth.save(out, "PNG" if number % 5 == 0 else "JPEG")
    return out.getvalue()


@pytest.fixture
def shards(make_shards: MakeShards) -> Path:
    """133 images in 10 shards of 13 or 14 records, 2 lanes."""
    examples = [
        {"id": number, "image": image(number), "label": number % 7} for number in range(COUNT)
    ]
    return make_shards(examples, num_shards=10, num_lanes=2, features=FEATURES)


def read_config(
    shards: Path,
    place: WorkerPlace = WorkerPlace(),  # noqa: B008 - frozen
    **options: Any,
) -> ReadConfig:
    defaults: dict[str, Any] = {
        "image_size": (16, 16),
        "decoder": "turbo",
        "seed": 5,
        "shuffle_buffer_bytes": 10 * 2 * 1000,
        "threads": 2,
    }
    return open_config(
        str(shards),
        split="train",
        global_batch_size=BATCH,
        place=place,
        options=ReadOptions(**{**defaults, **options}),
    )


def by_tensorflow(config: ReadConfig) -> ReadConfig:
    return replace(config, options=replace(config.options, decoder="tf"))


def count_equal(batches: tf.data.Dataset, others: tf.data.Dataset) -> int:
    """Compare batches pairwise, images within one level; return their number."""
    assert batches.element_spec == others.element_spec
    count = 0
    for batch, other in zip(batches, others, strict=True):
        count += 1
        features, expected = dict(batch.fed[0]), dict(other.fed[0])
        images = features.pop("image").numpy().astype(int)
        assert np.abs(images - expected.pop("image").numpy().astype(int)).max() <= 1
        batch = batch._replace(fed=(features, *batch.fed[1:]), decode_s=0)
        other = other._replace(fed=(expected, *other.fed[1:]), decode_s=0)
        tf.nest.map_structure(np.testing.assert_array_equal, batch, other)
    return count


@pytest.mark.parametrize("worker", [0, 1])
@pytest.mark.parametrize("augment", ["", "flip,crop:0.5"])
def test_record_ids_give_the_batches_of_raw_records(
    shards: Path, worker: int, augment: str
) -> None:
    config = read_config(shards, WorkerPlace(worker, 2), augment=augment)
    other = by_tensorflow(config)
    assigned = config.shards
    steps = assigned.steps_per_epoch
    assert (steps, assigned.tail_steps) == (11, 1)
    for start in (BEGINNING, Position(1, steps - 2)):
        batches, others = (
            training_batches(each, start=start, epochs=2, tail=True) for each in (config, other)
        )
        remaining = 2 * (steps + 1) if start == BEGINNING else 3
        assert count_equal(batches, others) == remaining
    assert count_equal(evaluation_batches(config), evaluation_batches(other)) == 12


def test_many_values_are_parsed_by_tensorflow(make_shards: MakeShards) -> None:
    features = (*FEATURES, Feature("vector", "float", (40,)), Feature("name", "bytes"))
    examples = [
        {"id": n, "image": image(n), "label": 0, "vector": [n / 7] * 40, "name": f"{n}"}
        for n in range(48)
    ]
    config = read_config(make_shards(examples, num_shards=4, num_lanes=2, features=features))
    batches, others = (training_batches(c, epochs=1) for c in (config, by_tensorflow(config)))
    assert count_equal(batches, others) == 4


def test_record_without_its_label_is_named(make_shards: MakeShards) -> None:
    examples = [{"id": n, "image": image(n), "label": 0} for n in range(48)]
    del examples[17]["label"]
    config = read_config(make_shards(examples, num_shards=4, num_lanes=2, features=FEATURES))
    named = (
        r"train-00001-of-00004\.tfrecord record 4 at byte [\d,]+ cannot be parsed: "
        "feature 'label' has 0 int64 values, the manifest says 1 int64"
    )
    with pytest.raises(READ_ERRORS, match=named):
        list(training_batches(config, epochs=1))


def test_python_decoder_reads_raw_records_too(
    shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it does on remote storage."""
    config = read_config(shards, augment="flip")
    by_id = training_batches(config, epochs=1, tail=True)
    monkeypatch.setattr(batches_module, "open_reader", partial(open_reader, by_id=False))
    assert count_equal(by_id, training_batches(config, epochs=1, tail=True)) == 12


def test_resuming_reads_no_skipped_payload(shards: Path) -> None:
    config = read_config(shards)
    whole = [batch.fed[0]["id"].numpy().tolist() for batch in training_batches(config, epochs=1)]
    skipped = {number for batch in whole[:10] for number in batch}
    # Damage every payload before the position.
    for path in shards.glob("*.tfrecord"):
        data, offset, shard = bytearray(path.read_bytes()), 0, int(path.name[6:11])
        for index in range(15):
            if offset >= len(data):
                break
            length = int.from_bytes(data[offset : offset + 8], "little")
            if shard + 10 * index in skipped:
                data[offset + 20] ^= 0xFF
            offset += length + 16
        path.write_bytes(data)
    rest = training_batches(config, start=Position(0, 10), epochs=1)
    assert [batch.fed[0]["id"].numpy().tolist() for batch in rest] == whole[10:]
    with pytest.raises(READ_ERRORS):
        list(training_batches(config, start=Position(0, 9), epochs=1))


@pytest.mark.parametrize("damaged", [14, 2, -2], ids=["payload", "length", "footer"])
def test_damaged_record_is_named_at_once(shards: Path, damaged: int) -> None:
    path = sorted(shards.glob("*.tfrecord"))[3]
    data = bytearray(path.read_bytes())
    first = int.from_bytes(data[:8], "little") + 16
    end = first + int.from_bytes(data[first : first + 8], "little") + 16
    data[(end if damaged < 0 else first) + damaged] ^= 0x40
    path.write_bytes(data)
    config = read_config(shards)
    with pytest.raises(READ_ERRORS, match=rf"{path.name} record 1 at byte {first:,}: .*checksum"):
        list(training_batches(config, epochs=1))
    explained = explain_read_error(config, start=BEGINNING, steps=1)
    assert f"{path.name} record 1 at byte {first:,}" in str(explained)


def test_undecodable_image_is_named(make_shards: MakeShards) -> None:
    examples = [{"id": n, "image": image(n), "label": 0} for n in range(48)]
    examples[17]["image"] = image(18)[:200]
    shards = make_shards(examples, num_shards=4, num_lanes=2, features=FEATURES)
    config = read_config(shards)
    named = r"train-00001-of-00004\.tfrecord record 4 at byte [\d,]+ cannot be decoded"
    with pytest.raises(READ_ERRORS, match=named):
        list(training_batches(config, epochs=1))
    explained = explain_read_error(config, start=BEGINNING, steps=4)
    assert isinstance(explained, JobError)
    assert "train-00001-of-00004.tfrecord record 4" in str(explained)


def test_truncated_shard_is_named(shards: Path) -> None:
    path = sorted(shards.glob("*.tfrecord"))[3]
    data = path.read_bytes()
    path.write_bytes(data[: -(int.from_bytes(data[:8], "little") + 16)])
    with pytest.raises(READ_ERRORS, match=rf"{path.name} has [\d,]+ bytes, the manifest says"):
        list(training_batches(read_config(shards), epochs=1))


PROGRAM = """
import sys
from tenfold.data import ReadOptions, training_dataset
options = ReadOptions(image_size=(900, 900), seed=1)
iterator = iter(training_dataset(sys.argv[1], global_batch_size=12, options=options))
next(iterator)
print("read", flush=True)
"""


@pytest.mark.timeout(240)
def test_process_exits_with_an_unfinished_iterator(shards: Path) -> None:
    """Other threads are still decoding while Python exits."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, shards], capture_output=True, text=True, timeout=220
    )
    assert (done.returncode, done.stdout) == (0, "read\n"), done.stderr
