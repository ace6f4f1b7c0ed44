"""Receipts of epochs that a script reads by the public datasets."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tenfold.data import (
    Position,
    ReadOptions,
    UserError,
    WorkerPlace,
    epoch_receipt,
    evaluation_dataset,
    training_dataset,
)

BATCH = 24
STEPS = 13  # the shortest of 8 lanes has 41 records, 3 go into each batch


@pytest.fixture
def shards(make_id_shards: Callable[..., Path]) -> str:
    """331 records in 16 shards, 8 lanes: an epoch leaves out 331 - 13 * 24 = 19."""
    return str(make_id_shards(331, num_shards=16, num_lanes=8))


def parts_of(
    shards: str,
    *,
    workers: int = 1,
    replicas: int = 1,
    dataset: Callable[..., Any] = training_dataset,
    **arguments: Any,
) -> list[list[Any]]:
    """Return the elements of each worker."""
    defaults = {"global_batch_size": BATCH, "split": "train", "receipt": True}
    options = ReadOptions(seed=5, threads=2)
    places = [WorkerPlace(worker, workers, replicas) for worker in range(workers)]
    arguments = {**defaults, "options": options, **arguments}
    return [list(dataset(shards, place=place, **arguments)) for place in places]


def total(parts: list[list[Any]]) -> Any:
    return sum(element[-1] for part in parts for element in part).numpy()


@pytest.mark.parametrize(("workers", "replicas"), [(1, 2), (4, 1)])
def test_receipt_over_all_workers(shards: str, workers: int, replicas: int) -> None:
    arguments: dict[str, Any] = {"workers": workers, "replicas": replicas, "epochs": 2}
    parts = parts_of(shards, **arguments)
    plain = parts_of(shards, receipt=False, **arguments)
    for part, without in zip(parts, plain, strict=True):
        assert len(part) == 2 * STEPS * replicas
        for (x, y, _), (x_without, y_without) in zip(part, without, strict=True):
            assert np.array_equal(x, x_without)
            assert np.array_equal(y, y_without)
    length = STEPS * replicas
    for epoch in range(2):
        receipt = epoch_receipt(
            shards, total([part[epoch * length : (epoch + 1) * length] for part in parts])
        )
        assert (receipt.records, receipt.left_out, receipt.exact) == (STEPS * BATCH, 19, True)
    mixed = [part[1 : length + 1] for part in parts]  # the last batch belongs to the next epoch
    receipt = epoch_receipt(shards, total(mixed))
    assert (receipt.records, receipt.exact) == (STEPS * BATCH, False)


@pytest.mark.parametrize("step", [5, STEPS - 1, STEPS])
def test_receipt_of_a_resumed_epoch(shards: str, step: int) -> None:
    [before] = parts_of(shards, epochs=1)
    resumed = parts_of(shards, workers=2, epochs=2, start=Position(0, step))
    assert {len(part) for part in resumed} == {2 * STEPS - step}
    counts = total([before[:step], *(part[: STEPS - step] for part in resumed)])
    assert epoch_receipt(shards, counts).exact
    assert epoch_receipt(shards, total([part[STEPS - step :] for part in resumed])).exact


def test_receipt_of_an_evaluation(shards: str) -> None:
    parts = parts_of(shards, workers=2, dataset=evaluation_dataset)
    receipt = epoch_receipt(shards, total(parts))
    assert (receipt.records, receipt.left_out, receipt.exact) == (331, 0, True)
    assert not epoch_receipt(shards, total([parts[0]])).exact


def test_receipt_without_leftover_records(make_id_shards: Callable[..., Path]) -> None:
    shards = str(make_id_shards(96, num_shards=8, num_lanes=4))
    receipt = epoch_receipt(shards, total(parts_of(shards, epochs=1)))
    assert receipt.sentence() == "96 of 96 records, each read once"


def test_start_beyond_the_epoch_is_refused(shards: str) -> None:
    message = "step 14 is not between 0 and the 13 steps"
    with pytest.raises(UserError, match=message):
        parts_of(shards, start=Position(0, STEPS + 1))
