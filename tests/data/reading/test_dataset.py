"""The public datasets: which worker reads, from where on, and the user's mistakes."""

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tenfold.data import (
    LayoutPolicy,
    Position,
    ReadOptions,
    UserError,
    WorkerPlace,
    evaluation_dataset,
    steps_per_epoch,
    training_dataset,
    worker_dataset,
    write_shards,
)

BATCH, STEPS = 24, 13
OPTIONS = ReadOptions(seed=5, threads=2)


@pytest.fixture
def shards(make_id_shards: Callable[..., Path]) -> str:
    """331 records in 16 shards, 8 lanes."""
    return str(make_id_shards(331, num_shards=16, num_lanes=8))


def ids(shards: str, **arguments: Any) -> list[list[int]]:
    defaults = {"global_batch_size": BATCH, "epochs": 1, "options": OPTIONS}
    dataset = training_dataset(shards, **{**defaults, **arguments})
    return [x.numpy().tolist() for x, _ in dataset]


def worker_ids(shards: str, **arguments: Any) -> list[list[int]]:
    defaults = {"global_batch_size": BATCH, "epochs": 1, "seed": 5, "threads": 2}
    dataset = worker_dataset(shards, **{**defaults, **arguments})
    return [x.numpy().tolist() for x, _ in dataset]


def tf_config(kind: str, index: int, cluster: dict[str, list[str]]) -> dict[str, str]:
    task = {"type": kind, "index": index}
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": task})}


# task, its cluster, its (index, number of workers)
TASKS = [
    (("worker", 0), {"worker": ["a:1", "b:1"]}, (0, 2)),
    (("worker", 1), {"worker": ["a:1", "b:1"]}, (1, 2)),
    (("chief", 0), {"chief": ["c:1"], "worker": ["a:1", "b:1"]}, (0, 3)),
    (("worker", 0), {"chief": ["c:1"], "worker": ["a:1", "b:1"]}, (1, 3)),
    (("worker", 1), {"worker": ["a:1", "b:1"], "chief": ["c:1"]}, (2, 3)),
    (("master", 0), {"master": ["c:1"], "worker": ["a:1"]}, (0, 2)),
    (("worker", 0), {"master": ["c:1"], "worker": ["a:1"], "ps": ["p:1"]}, (1, 2)),
    (("chief", 0), {"chief": ["c:1"], "evaluator": ["e:1"]}, (0, 1)),
]


@pytest.mark.parametrize(("task", "cluster", "expected"), TASKS)
def test_tf_config_numbers_the_chief_before_workers(
    task: tuple[str, int], cluster: dict[str, list[str]], expected: tuple[int, int]
) -> None:
    place = WorkerPlace.from_tf_config(tf_config(*task, cluster))
    assert (place.index, place.num_workers) == expected
    assert place.is_chief is (expected[0] == 0)


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        (tf_config("evaluator", 0, {"worker": ["a:1"]}), "'evaluator', which does not share"),
        (tf_config("ps", 0, {"worker": ["a:1"], "ps": ["p:1"]}), r"place=WorkerPlace\(\) to read"),
        (tf_config("worker", 2, {"worker": ["a:1", "b:1"]}), "'worker:2' is not in its cluster"),
        (tf_config("chief", 0, {"worker": ["a:1"]}), "'chief:0' is not in its cluster"),
        ({"TF_CONFIG": '{"cluster": {"worker": ["a:1", "b:1"]}}'}, "is not in its cluster"),
        ({"TF_CONFIG": "{worker"}, "TF_CONFIG is not JSON"),
        ({"TF_CONFIG": "[1]"}, "TF_CONFIG is not an object with 'cluster' and 'task'"),
    ],
)
def test_tf_config_without_a_reader_is_refused(environ: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        WorkerPlace.from_tf_config(environ)


def test_no_tf_config_is_the_only_worker() -> None:
    assert WorkerPlace.from_tf_config({}) == WorkerPlace()
    assert WorkerPlace.from_tf_config({"TF_CONFIG": "{}"}, replicas=2) == WorkerPlace(0, 1, 2)
    alone = {"TF_CONFIG": '{"cluster": {"worker": ["a:1"]}}'}
    assert WorkerPlace.from_tf_config(alone) == WorkerPlace()


@pytest.mark.parametrize(("index", "workers", "replicas"), [(2, 2, 1), (-1, 2, 1), (0, 0, 1)])
def test_impossible_place_is_refused(index: int, workers: int, replicas: int) -> None:
    with pytest.raises(UserError, match="worker"):
        WorkerPlace(index, workers, replicas)


def test_chief_and_worker_read_different_records(
    shards: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    for task in (("chief", 0), ("worker", 0)):
        environ = tf_config(*task, {"chief": ["a:1"], "worker": ["b:1"]})
        monkeypatch.setenv("TF_CONFIG", environ["TF_CONFIG"])
        read.append(ids(shards))
    assert read[0] == ids(shards, place=WorkerPlace(0, 2))
    assert read[1] == ids(shards, place=WorkerPlace(1, 2))
    by_chief, by_worker = (set(chain.from_iterable(batches)) for batches in read)
    assert not by_chief & by_worker


def test_place_comes_from_mpi_ranks(shards: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "1")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    assert WorkerPlace.from_environment(replicas=2) == WorkerPlace(1, 2, 2)
    assert WorkerPlace.from_environment({}) == WorkerPlace()
    assert ids(shards) == ids(shards, place=WorkerPlace(1, 2))
    assert worker_ids(shards) == worker_ids(shards, worker_index=1, num_workers=2)


def test_place_comes_from_context_or_numbers(shards: str) -> None:
    by_place = ids(shards, place=WorkerPlace(1, 2))
    context = tf.distribute.InputContext(
        num_input_pipelines=2, input_pipeline_id=1, num_replicas_in_sync=2
    )
    assert ids(shards, place=WorkerPlace.from_context(context)) == by_place
    assert worker_ids(shards, context=context) == by_place
    assert worker_ids(shards, num_workers=2, worker_index=1) == by_place
    assert ids(shards) != by_place


def test_context_has_several_replicas(shards: str) -> None:
    context = tf.distribute.InputContext(
        num_input_pipelines=2, input_pipeline_id=0, num_replicas_in_sync=4
    )
    place = WorkerPlace.from_context(context)
    assert place == WorkerPlace(0, 2, replicas=2)
    assert {len(batch) for batch in ids(shards, place=place)} == {BATCH // 4}


def test_training_starts_at_a_position(shards: str) -> None:
    whole = ids(shards, epochs=2)
    assert ids(shards, epochs=2, start=Position(0, 5)) == whole[5:]
    assert ids(shards, epochs=2, start=Position(0, STEPS)) == whole[STEPS:]
    assert worker_ids(shards, epochs=2, start_epoch=1, start_step=5) == whole[STEPS + 5 :]


def test_worker_dataset_evaluates(shards: str) -> None:
    arguments: dict[str, Any] = {"global_batch_size": BATCH, "split": "train"}
    old = worker_dataset(shards, training=False, **arguments)
    for element, expected in zip(old, evaluation_dataset(shards, **arguments), strict=True):
        assert len(element) == 3
        assert all(np.array_equal(a, b) for a, b in zip(element, expected, strict=True))


def test_steps_per_epoch(shards: str) -> None:
    assert steps_per_epoch(shards, global_batch_size=BATCH) == STEPS
    assert len(ids(shards)) == STEPS
    with pytest.raises(UserError, match="remainder is 'keep', none of drop, pad, repeat"):
        steps_per_epoch(shards, global_batch_size=BATCH, remainder="keep")


def test_smaller_batches_of_one_replica_need_no_weights(shards: str) -> None:
    batches = ids(shards, options=replace(OPTIONS, remainder="pad"))
    assert len(batches) == steps_per_epoch(shards, global_batch_size=BATCH, remainder="pad")
    assert sorted(chain(*batches)) == list(range(331))
    assert {len(batch) for batch in batches[:STEPS]} == {BATCH}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_workers": 2}, "belong together"),
        ({"num_workers": 2, "worker_index": 2}, "worker index 2 is not below 2"),
        ({"num_workers": 9, "worker_index": 0}, "cannot share 8 lanes"),
        ({"num_workers": 3, "worker_index": 0}, "give weights=True"),
        ({"split": "test"}, "there is no split 'test'; the shards have: train"),
        ({"image_dtype": "int8"}, "neither float32 nor uint8"),
        ({"image_size": (0, 8)}, r"image_size is \(0, 8\): give \(height, width\)"),
        ({"threads": -1}, "threads is -1: it cannot be below 0"),
        ({"replicas": 5}, "give weights=True"),
        ({"augment": "spin"}, "augment 'spin' is none of"),
        ({"decoder": "turbp"}, "unknown decoder 'turbp': did you mean 'turbo'?"),
        ({"start_step": STEPS + 1}, "step 14 is not between 0 and the 13 steps"),
        ({"start_step": -1}, "epoch 0, step -1: neither can be below 0"),
    ],
)
def test_mistakes_are_user_errors(shards: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        worker_ids(shards, **arguments)


def test_any_name_is_a_feature_like_others(tmp_path: Path) -> None:
    names = [
        "weight",
        "fingerprint",
        "decode_s",
        "weights",
        "receipt_counts",
        "features",
        "Bild ä",
    ]
    records = [dict.fromkeys(names, number + 0.5) | {"label": number % 2} for number in range(8)]
    write_shards(records, tmp_path / "shards", policy=LayoutPolicy(num_workers=1))
    arguments: dict[str, Any] = {"global_batch_size": 4, "split": "train", "receipt": True}
    shards = str(tmp_path / "shards")

    for x, y, counts in training_dataset(shards, epochs=1, **arguments):
        assert sorted(x) == sorted(names)
        assert all(np.array_equal(x[name] % 2 > 1, y) for name in names)
        assert counts[0] == 4

    for x, _, weight, _ in evaluation_dataset(shards, **arguments):
        assert sorted(x) == sorted(names)
        assert weight.numpy().tolist() == [1, 1, 1, 1]
