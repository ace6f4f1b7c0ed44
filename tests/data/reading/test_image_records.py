"""Batches of images read by place: the same as by TensorFlow's ops, whoever makes them."""

import io
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageFilter

from tenfold.data.errors import JobError
from tenfold.data.format.manifest import Feature
from tenfold.data.reading import batches as batches_module
from tenfold.data.reading.batches import evaluation_batches, training_batches
from tenfold.data.reading.decoding.augment_options import Augment
from tenfold.data.reading.graph_records import input_spec
from tenfold.data.reading.order import BEGINNING, Position
from tenfold.data.reading.read_config import ReadConfig
from tenfold.data.reading.read_errors import READ_ERRORS, explain_read_error
from tenfold.data.storage.read_manifest import read_manifest

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


def read_config(shards: Path, **options: Any) -> ReadConfig:
    manifest = read_manifest(str(shards))
    given: dict[str, Any] = {"num_workers": 1, "worker": 0, "decoder": "turbo", "threads": 2}
    return ReadConfig(
        folder=str(shards),
        manifest=manifest,
        split="train",
        global_batch_size=BATCH,
        spec=input_spec(manifest, (16, 16)),
        seed=5,
        shuffle_buffer_bytes=10 * 2 * 1000,
        **{**given, **options},
    )


def alike(ours: tf.data.Dataset, theirs: tf.data.Dataset) -> int:
    """Returns how many batches there are, after comparing each with its twin."""
    assert ours.element_spec == theirs.element_spec
    count = 0
    for one, other in zip(ours, theirs, strict=True):
        count += 1
        for name in one.keys() - {"decode_s", "image"}:
            assert one[name].numpy().tolist() == other[name].numpy().tolist(), name
        levels = np.abs(one["image"].numpy().astype(int) - other["image"].numpy().astype(int))
        assert levels.max() <= 1
    return count


@pytest.mark.parametrize("worker", [0, 1])
@pytest.mark.parametrize("augment", [Augment(), Augment(flip=True, min_side=0.5)])
def test_places_give_the_batches_that_records_give(
    shards: Path, worker: int, augment: Augment
) -> None:
    config = read_config(shards, num_workers=2, worker=worker, augment=augment)
    by_tensorflow = replace(config, decoder="tf")
    assigned = config.shards(drop_remainder=True)
    steps = assigned.steps_per_epoch
    assert (steps, assigned.tail_steps) == (11, 1)
    for start in (BEGINNING, Position(1, steps - 2)):
        ours, theirs = (
            training_batches(one, start=start, epochs=2, tail=True)
            for one in (config, by_tensorflow)
        )
        left = 2 * (steps + 1) if start == BEGINNING else 3
        assert alike(ours, theirs) == left
    assert alike(evaluation_batches(config), evaluation_batches(by_tensorflow)) == 12


def test_many_values_beside_a_image_are_parsed_by_tensorflow(make_shards: MakeShards) -> None:
    features = (*FEATURES, Feature("vector", "float", (40,)), Feature("name", "bytes"))
    examples = [
        {"id": at, "image": image(at), "label": 0, "vector": [at / 7] * 40, "name": f"{at}"}
        for at in range(48)
    ]
    config = read_config(
        make_shards(examples, num_shards=4, num_lanes=2, features=features), augment=Augment()
    )
    by_tensorflow = replace(config, decoder="tf")
    ours, theirs = (training_batches(one, epochs=1) for one in (config, by_tensorflow))
    assert alike(ours, theirs) == 4


def test_a_record_without_what_the_manifest_says_is_named(make_shards: MakeShards) -> None:
    examples = [{"id": at, "image": image(at), "label": 0} for at in range(48)]
    del examples[17]["label"]
    config = read_config(make_shards(examples, num_shards=4, num_lanes=2, features=FEATURES))
    named = (
        r"train-00001-of-00004\.tfrecord record 4 at byte [\d,]+ cannot be parsed: "
        "feature 'label' has 0 int64 values, the manifest says 1 int64"
    )
    with pytest.raises(READ_ERRORS, match=named):
        list(training_batches(config, epochs=1))


def test_the_same_decoder_reads_whole_records_too(
    shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it does on remote storage."""
    config = read_config(shards, augment=Augment(flip=True))
    by_place = training_batches(config, epochs=1, tail=True)
    monkeypatch.setattr(batches_module, "_local_files", lambda config, shards: None)
    assert alike(by_place, training_batches(config, epochs=1, tail=True)) == 12


def test_going_on_reads_nothing_of_what_it_skips(shards: Path) -> None:
    config = read_config(shards)
    whole = [batch["id"].numpy().tolist() for batch in training_batches(config, epochs=1)]
    skipped = {number for batch in whole[:10] for number in batch}
    # Every payload that lies before the position is broken.
    for path in shards.glob("*.tfrecord"):
        data, at, shard = bytearray(path.read_bytes()), 0, int(path.name[6:11])
        for index in range(15):
            if at >= len(data):
                break
            length = int.from_bytes(data[at : at + 8], "little")
            if shard + 10 * index in skipped:
                data[at + 20] ^= 0xFF
            at += length + 16
        path.write_bytes(data)
    rest = training_batches(config, start=Position(0, 10), epochs=1)
    assert [batch["id"].numpy().tolist() for batch in rest] == whole[10:]
    with pytest.raises(READ_ERRORS):
        list(training_batches(config, start=Position(0, 9), epochs=1))


@pytest.mark.parametrize(("at", "problem"), [(14, "checksum"), (2, "checksum"), (-2, "checksum")])
def test_what_is_damaged_is_named_at_once(shards: Path, at: int, problem: str) -> None:
    path = sorted(shards.glob("*.tfrecord"))[3]
    data = bytearray(path.read_bytes())
    first = int.from_bytes(data[:8], "little") + 16
    end = first + int.from_bytes(data[first : first + 8], "little") + 16
    data[(end if at < 0 else first) + at] ^= 0x40
    path.write_bytes(data)
    config = read_config(shards)
    with pytest.raises(READ_ERRORS, match=rf"{path.name} record 1 at byte {first:,}: .*{problem}"):
        list(training_batches(config, epochs=1))
    explained = explain_read_error(config, start=BEGINNING, steps=1)
    assert f"{path.name} record 1 at byte {first:,}" in str(explained)


def test_a_image_that_cannot_be_decoded_is_named(make_shards: MakeShards) -> None:
    examples = [{"id": at, "image": image(at), "label": 0} for at in range(48)]
    examples[17]["image"] = image(18)[:200]
    shards = make_shards(examples, num_shards=4, num_lanes=2, features=FEATURES)
    config = read_config(shards)
    named = r"train-00001-of-00004\.tfrecord record 4 at byte [\d,]+ cannot be decoded"
    with pytest.raises(READ_ERRORS, match=named):
        list(training_batches(config, epochs=1))
    explained = explain_read_error(config, start=BEGINNING, steps=4)
    assert isinstance(explained, JobError)
    assert "train-00001-of-00004.tfrecord record 4" in str(explained)


def test_a_shard_that_was_cut_is_told(shards: Path) -> None:
    path = sorted(shards.glob("*.tfrecord"))[3]
    data = path.read_bytes()
    path.write_bytes(data[: -(int.from_bytes(data[:8], "little") + 16)])
    with pytest.raises(READ_ERRORS, match=rf"{path.name} has [\d,]+ bytes, the manifest says"):
        list(training_batches(read_config(shards), epochs=1))


PROGRAM = """
import sys
from tenfold.data.reading.dataset import worker_dataset
iterator = iter(worker_dataset(sys.argv[1], global_batch_size=12, image_size=(900, 900), seed=1))
next(iterator)
print("read", flush=True)
"""


@pytest.mark.timeout(240)
def test_a_process_ends_that_has_not_read_to_the_end(shards: Path) -> None:
    """Decoding goes on in other threads while Python ends."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, shards], capture_output=True, text=True, timeout=220
    )
    assert (done.returncode, done.stdout) == (0, "read\n"), done.stderr
