"""What models are fed: by options and by the user's function, on any number of workers."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tenfold.data.errors import UserError
from tenfold.data.format.manifest import Feature
from tenfold.data.reading.batches import evaluation_batches, feed_of, training_batches
from tenfold.data.reading.dataset import evaluation_dataset, training_dataset
from tenfold.data.reading.feeding.feed_options import FeedOptions
from tenfold.data.reading.locating.read_errors import explain_errors
from tenfold.data.reading.read_config import ReadConfig, read_config
from tenfold.data.reading.read_options import Position, ReadOptions, WorkerPlace

COUNT, BATCH = 72, 12
FEATURES = (
    Feature("history", "int64", (None,)),
    Feature("label", "int64"),
    Feature("other", "float"),
    Feature("text", "bytes"),
    Feature("weight", "float"),
)
MakeShards = Callable[..., Path]


@pytest.fixture
def shards(make_shards: MakeShards) -> Path:
    """72 records in 12 shards, 6 lanes; record i has i % 5 items."""
    examples = [
        {
            "history": np.full(number % 5, number, np.int64),
            "label": number % 3,
            "other": number / 2,
            "text": f"text {number}",
            "weight": 1.0 + number,
        }
        for number in range(COUNT)
    ]
    return make_shards(examples, num_shards=12, num_lanes=6, features=FEATURES)


def config_of(shards: Path, place: WorkerPlace | None = None, **options: Any) -> ReadConfig:
    return read_config(
        str(shards),
        split="train",
        global_batch_size=BATCH,
        place=place or WorkerPlace(),
        options=ReadOptions(threads=2, shuffle_buffer_bytes=10_000, **options),
    )


def double(features: dict[str, Any]) -> Any:
    return features["history"] * 2, {"label": features["label"]}, features["weight"]


def noisy(features: dict[str, Any], seeds: Any) -> Any:
    """Add noise in training, as an augmentation does."""
    if seeds is None:
        return features["other"], features["label"]
    noise = tf.map_fn(
        lambda seed: tf.random.stateless_uniform([], seed), seeds, fn_output_signature=tf.float32
    )
    return features["other"] + noise, features["label"]


def test_features_are_read_as_they_are_named(shards: Path) -> None:
    """No name is taken: 'weight' is a feature like others."""
    dataset = training_dataset(str(shards), global_batch_size=BATCH, place=WorkerPlace())
    x, y = next(iter(dataset))
    assert sorted(x) == ["history", "other", "text", "weight"]
    numbers = [int(weight) - 1 for weight in x["weight"].numpy()]
    assert x["history"].to_list() == [[number] * (number % 5) for number in numbers]
    assert x["text"].numpy().tolist() == [b"text %d" % number for number in numbers]
    assert y.numpy().tolist() == [number % 3 for number in numbers]


def test_targets_weight_and_lengths(shards: Path) -> None:
    feed = FeedOptions(
        inputs=("history",),
        target=("label", "other"),
        weight_feature="weight",
        pad={"history": 3},
    )
    x, y, weight = next(iter(training_batches(config_of(shards, feed=feed)))).fed
    numbers = [int(number) - 1 for number in weight.numpy()]
    assert x.shape == (BATCH, 3)
    rows = [([number] * min(3, number % 5) + [0] * 3)[:3] for number in numbers]
    assert x.numpy().tolist() == rows
    assert y["other"].numpy().tolist() == [number / 2 for number in numbers]


@pytest.mark.parametrize("remainder", ["drop", "pad"])
@pytest.mark.parametrize("function", [double, noisy])
def test_any_number_of_workers_is_fed_the_same(
    shards: Path, function: Any, remainder: str
) -> None:
    """Ragged values and random numbers included, and from the middle of an epoch on."""

    def fed(num_workers: int, start: Position) -> list[list[Any]]:
        parts = [
            training_batches(
                config_of(
                    shards, WorkerPlace(worker, num_workers), map=function, remainder=remainder
                ),
                start=start,
                epochs=2,
            )
            for worker in range(num_workers)
        ]
        return [
            sorted(
                zip(
                    [
                        row
                        for batch in step
                        for x in [batch.fed[0]]
                        for row in (x.to_list() if function is double else x.numpy().tolist())
                    ],
                    [int(print_) for batch in step for print_ in batch.fingerprints.numpy()],
                    strict=True,
                ),
                key=lambda pair: pair[1],
            )
            for step in zip(*parts, strict=True)
        ]

    whole = fed(1, Position())
    assert fed(2, Position()) == whole
    assert fed(4, Position()) == whole
    assert fed(3, Position(0, 4)) == whole[4:]


def test_evaluation_feeds_every_record_once(shards: Path) -> None:
    rows = []
    for worker in range(4):
        for batch in evaluation_batches(config_of(shards, WorkerPlace(worker, 4), map=noisy)):
            count = int(tf.reduce_sum(batch.present))
            assert batch.fed[0].shape == (BATCH // 4,)
            rows += batch.fed[0].numpy()[:count].tolist()
    # Seeds are None, so nothing is changed.
    assert sorted(rows) == [number / 2 for number in range(COUNT)]


def test_ragged_evaluation_is_padded_with_empty_lists(shards: Path) -> None:
    rows, present = [], 0.0
    for batch in evaluation_batches(config_of(shards, WorkerPlace(1, 5), map=double)):
        rows += batch.fed[0].to_list()
        present += float(tf.reduce_sum(batch.present))
    assert len(rows) > present
    assert rows[int(present) :] == [[]] * (len(rows) - int(present))


def test_tail_keeps_the_structure(shards: Path) -> None:
    config = replace(config_of(shards, map=double), global_batch_size=20)
    batches = list(training_batches(config, epochs=1, tail=True))
    assert sum(int(tf.math.count_nonzero(batch.fingerprints)) for batch in batches) == COUNT
    size = len(batches[-1].fingerprints)
    assert batches[-1].fed[0].to_list() == [[]] * size
    assert batches[-1].fed[1]["label"].numpy().tolist() == [0] * size


def test_dataset_takes_a_map(shards: Path) -> None:
    dataset = training_dataset(
        str(shards), global_batch_size=BATCH, place=WorkerPlace(), map=double, weights=True
    )
    x, y, weight = next(iter(dataset))
    assert [row[0] // 2 if row else None for row in x.to_list()] == [
        int(number) - 1 if (int(number) - 1) % 5 else None for number in weight.numpy()
    ]
    assert set(y) == {"label"}
    evaluation = evaluation_dataset(
        str(shards), split="train", global_batch_size=BATCH, place=WorkerPlace(), map=double
    )
    assert sum(float(tf.reduce_sum(weight)) for _, _, weight in evaluation) == sum(
        range(1, COUNT + 1)
    )


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda f: f["histroy"], r"fails in test_feed.py line \d+: KeyError: 'histroy' .it gets"),
        (
            lambda f: np.log(f["other"]),
            r"fails in test_feed.py line \d+: NotImplementedError: Cannot convert a symbolic",
        ),
        (lambda f: (f["other"],) * 4, r"returns 4 values: return x, \(x, y\) or"),
        (lambda f: (f["other"], None), "returns NoneType as 'y'"),
        (lambda f: tf.reduce_sum(f["other"]), "returns a scalar as 'x'"),
        (lambda f: (f["other"], f["label"], f["history"]), r"the weight is not of shape"),
    ],
    ids=["key", "numpy", "four", "none", "scalar", "weight"],
)
def test_map_that_does_not_fit_is_refused(shards: Path, function: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        _ = feed_of(config_of(shards, map=function)).element_spec


def test_map_with_other_rows_fails(shards: Path) -> None:
    dataset = training_batches(config_of(shards, map=lambda f: f["history"].values))
    rule = rf"map '<lambda>': 'x' must have a row for each record: it has \d+ for {BATCH} records"
    with pytest.raises(UserError, match=rule), explain_errors():
        next(iter(dataset))


def prepared(features: dict[str, Any], seeds: Any) -> Any:
    """Return features as they are and changed ones, one of them under an old name."""
    other = features["other"] / 100
    x = {"items": features["history"], "other": other, "noise": tf.cast(seeds, tf.float32)}
    return x, features["label"]


def test_unchanged_features_are_known_by_tensor(shards: Path) -> None:
    feed = FeedOptions(pad={"history": 4})
    assert feed_of(config_of(shards, map=prepared)).unchanged == {"items": "history", "y": "label"}
    padded = feed_of(config_of(shards, map=prepared, feed=feed))
    assert padded.unchanged == {"items": "history", "y": "label"}
    assert padded.element_spec[0]["items"].shape == (None, 4)


def test_name_of_changed_and_unchanged_tensor_is_unknown(shards: Path) -> None:
    def both(features: dict[str, Any]) -> Any:
        return {"other": features["other"] / 100}, {"other": features["other"]}

    assert feed_of(config_of(shards, map=both)).unchanged == {}


def test_without_map_nothing_is_unchanged(shards: Path) -> None:
    assert feed_of(config_of(shards)).unchanged == {}


def pairs(features: dict[str, Any], seeds: Any, partners: Any) -> Any:
    assert seeds is not None
    assert partners is not None
    return tf.stack([features["other"], tf.gather(features["other"], partners)], axis=1)


@pytest.mark.parametrize(("batch", "remainder"), [(12, "drop"), (20, "pad"), (10, "repeat")])
def test_partners_are_equal_on_any_number_of_workers(
    shards: Path, batch: int, remainder: str
) -> None:
    def steps(num_workers: int, start: Position) -> list[list[list[float]]]:
        """Return the (record, partner) of each step, sorted."""
        places = [WorkerPlace(index, num_workers) for index in range(num_workers)]
        configs = [config_of(shards, place, map=pairs, remainder=remainder) for place in places]
        parts = [
            training_batches(replace(config, global_batch_size=batch), start=start, epochs=2)
            for config in configs
        ]
        return [
            sorted(pair for part in step for pair in part.fed[0].numpy().tolist())
            for step in zip(*parts, strict=True)
        ]

    whole = steps(1, Position())
    for step in whole:
        records, partners = zip(*step, strict=True)
        assert sorted(partners) == sorted(records)
        # Record i is in shard i % 12, lane i % 6.
        assert all((other * 2 - partner * 2) % 6 == 0 for other, partner in step)
        lanes = [record * 2 % 6 for record in records]
        alone = [lanes.count(lane) == 1 for lane in lanes]
        assert alone == [record == partner for record, partner in step]
    assert steps(4, Position()) == whole
    assert steps(3, Position(1, 2)) == whole[len(whole) // 2 + 2 :]


def test_parts_of_replicas_hold_their_partners(shards: Path) -> None:
    place = WorkerPlace(0, 1, replicas=4)
    for part in training_batches(config_of(shards, place, map=pairs), epochs=1):
        records, partners = part.fed[0].numpy().T
        assert sorted(partners) == sorted(records)
