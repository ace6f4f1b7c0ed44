"""Batches of similar lengths: the same on any number of workers and after a resume."""

from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tenfold.data.errors import UserError
from tenfold.data.format.manifest import Feature
from tenfold.data.reading.batches import training_batches
from tenfold.data.reading.feeding.input_spec import bucket_feature
from tenfold.data.reading.locating.batch_records import global_batch_records
from tenfold.data.reading.ordering import bucketing
from tenfold.data.reading.ordering import order as order_module
from tenfold.data.reading.read_config import ReadConfig, read_config
from tenfold.data.reading.read_options import BEGINNING, Position, ReadOptions, WorkerPlace
from tenfold.data.storage.read_manifest import read_manifest

COUNT = 275
FEATURES = (Feature("id", "int64"), Feature("tokens", "int64", (None,)))
MakeShards = Callable[..., Path]


@pytest.fixture
def shards(make_shards: MakeShards, monkeypatch: pytest.MonkeyPatch) -> Path:
    """275 records in 12 shards, 6 lanes; a window has four steps."""
    monkeypatch.setattr(bucketing, "WINDOW_STEPS", 4)
    monkeypatch.setattr(order_module, "WINDOW_STEPS", 4)
    lengths = np.random.default_rng(3).integers(0, 100, COUNT)
    examples = [
        {"id": number, "tokens": np.full(length, number, np.int64)}
        for number, length in enumerate(lengths)
    ]
    return make_shards(examples, num_shards=12, num_lanes=6, features=FEATURES)


def config_of(
    shards: Path, worker: int, num_workers: int, *, batch: int, bucket: str = "tokens"
) -> ReadConfig:
    return read_config(
        str(shards),
        split="train",
        global_batch_size=batch,
        place=WorkerPlace(worker, num_workers),
        options=ReadOptions(threads=2, shuffle_buffer_bytes=20_000, bucket=bucket, seed=4),
    )


def steps_of(
    shards: Path,
    num_workers: int,
    start: Position = BEGINNING,
    **options: Any,
) -> list[list[tuple[int, int]]]:
    """Return the (id, length) of the records of each step of two epochs, sorted."""
    parts = [
        training_batches(config_of(shards, worker, num_workers, **options), start=start, epochs=2)
        for worker in range(num_workers)
    ]
    return [
        sorted(
            (int(number), int(length))
            for batch in step
            for number, length in zip(
                batch.fed[0]["id"].numpy(), batch.fed[0]["tokens"].row_lengths(), strict=True
            )
        )
        for step in zip(*parts, strict=True)
    ]


def spread(steps: list[list[tuple[int, int]]]) -> float:
    """Return the mean over the steps of the deviation of lengths."""
    return float(np.mean([np.std([length for _, length in step]) for step in steps]))


@pytest.mark.parametrize(("batch", "workers"), [(24, 3), (20, 4)])
def test_steps_have_similar_lengths_on_any_number_of_workers(
    shards: Path, batch: int, workers: int
) -> None:
    whole = steps_of(shards, 1, batch=batch)
    plain = steps_of(shards, 1, batch=batch, bucket="")
    assert spread(whole) < 0.5 * spread(plain)
    per_epoch = len(whole) // 2
    for first in (0, per_epoch):
        window = slice(first, first + 4)
        assert sorted(chain(*whole[window])) == sorted(chain(*plain[window]))
    assert steps_of(shards, workers, batch=batch) == whole
    assert steps_of(shards, 2, Position(0, 6), batch=batch) == whole[6:]
    assert steps_of(shards, 1, Position(1, 0), batch=batch) == whole[per_epoch:]


def test_leftover_records_stay_in_the_tail(shards: Path) -> None:
    config = config_of(shards, 0, 1, batch=24)
    whole = list(training_batches(config, epochs=1))
    with_tail = list(training_batches(config, epochs=1, tail=True))
    steps = config.shards.steps_per_epoch
    for batch, other in zip(whole, with_tail[:steps], strict=True):
        assert batch.fed[0]["id"].numpy().tolist() == other.fed[0]["id"].numpy().tolist()
    prints = [int(found) for batch in with_tail for found in batch.fingerprints.numpy() if found]
    assert len(set(prints)) == COUNT


def test_lengths_of_steps_are_in_no_order(shards: Path) -> None:
    means = [np.mean([length for _, length in step]) for step in steps_of(shards, 1, batch=24)]
    rises = [np.all(np.diff(means[first : first + 4]) > 0) for first in range(0, 8, 4)]
    assert not all(rises)


def test_records_of_a_step_are_named(shards: Path) -> None:
    config = config_of(shards, 1, 2, batch=24)
    names = global_batch_records(config, Position(0, 5))
    found = sorted(number for number, _ in steps_of(shards, 1, batch=24)[5])
    # Record i is the (i // 12)th of shard i % 12.
    numbers = [int(name[6:11]) + 12 * int(name.rpartition(" ")[2]) for name in names]
    assert sorted(numbers) == found


@pytest.mark.parametrize(
    ("name", "message"),
    [("id", "buckets are made of lists"), ("token", "these shards have id, tokens")],
)
def test_feature_without_lengths_is_refused(shards: Path, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        bucket_feature(read_manifest(str(shards)), name)
