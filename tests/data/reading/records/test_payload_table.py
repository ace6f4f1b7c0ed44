"""Records cut out of shards in memory equal those that TensorFlow reads; damage is named."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tenfold.data.format.manifest import Feature
from tenfold.data.reading import batches as batches_module
from tenfold.data.reading.batches import evaluation_batches, open_reader, training_batches
from tenfold.data.reading.locating.read_errors import READ_ERRORS
from tenfold.data.reading.read_config import ReadConfig, read_config
from tenfold.data.reading.read_options import ReadOptions, WorkerPlace
from tenfold.data.reading.records.graph_records import GraphRecordReader

FEATURES = (Feature("id", "int64"), Feature("words", "bytes", (None,)))
MakeShards = Callable[..., Path]


@pytest.fixture
def shards(make_shards: MakeShards) -> Path:
    """100 records in 5 shards, one lane."""
    examples = [
        {"id": number, "words": [f"w{number}"] * (number % 4 + 1)} for number in range(100)
    ]
    return make_shards(examples, num_shards=5, num_lanes=1, features=FEATURES)


def config_of(shards: Path, memory: int = 10**6) -> ReadConfig:
    return read_config(
        str(shards),
        split="train",
        global_batch_size=8,
        place=WorkerPlace(),
        options=ReadOptions(threads=2, shuffle_buffer_bytes=memory, seed=3),
    )


def rows(dataset: tf.data.Dataset) -> list[Any]:
    return [
        (batch.fed[0]["id"].numpy().tolist(), batch.fed[0]["words"].to_list(), batch.fingerprints)
        for batch in dataset
    ]


def test_batches_are_those_of_raw_records(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(shards)
    reader = open_reader(config, config.shards.shards, plan=iter(()))
    assert isinstance(reader, GraphRecordReader)
    assert reader.elements.are_ids
    found = rows(training_batches(config, epochs=2, tail=True)), rows(evaluation_batches(config))
    monkeypatch.setattr(batches_module, "open_reader", partial(open_reader, by_id=False))
    other = rows(training_batches(config, epochs=2, tail=True)), rows(evaluation_batches(config))
    for one, another in zip(found, other, strict=True):
        assert [row[:2] for row in one] == [row[:2] for row in another]
        for (*_, prints), (*_, expected) in zip(one, another, strict=True):
            np.testing.assert_array_equal(prints, expected)


def test_shards_beyond_the_memory_are_read_as_records(shards: Path) -> None:
    config = config_of(shards, memory=1000)
    assert not open_reader(config, config.shards.shards, plan=iter(())).elements.are_ids


@pytest.mark.parametrize("place", [3, 30], ids=["header", "payload"])
def test_damaged_record_is_named(shards: Path, place: int) -> None:
    path = shards / "train-00002-of-00005.tfrecord"
    data = bytearray(path.read_bytes())
    data[place] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(READ_ERRORS, match=r"train-00002-of-00005\.tfrecord .*record 0 at byte 0"):
        list(training_batches(config_of(shards), epochs=1))
