"""Receipts of epochs that are read with `worker_dataset` alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tenfold.data import epoch_receipt, worker_dataset
from tenfold.data.errors import UserError

BATCH = 24
STEPS = 13  # the shortest of 8 lanes has 41 records, 3 go into each batch


@pytest.fixture
def shards(make_id_shards: Callable[..., Path]) -> str:
    """331 records in 16 shards, 8 lanes: an epoch leaves out 331 - 13 * 24 = 19."""
    return str(make_id_shards(331, num_shards=16, num_lanes=8))


def parts_of(shards: str, *, workers: int = 1, **options: Any) -> list[list[Any]]:
    """Returns the elements of each worker."""
    given = {"global_batch_size": BATCH, "seed": 5, "threads": 2, "receipt": True, **options}
    return [
        list(worker_dataset(shards, num_workers=workers, worker_index=worker, **given))
        for worker in range(workers)
    ]


def total(parts: list[list[Any]]) -> Any:
    return sum(element[-1] for part in parts for element in part).numpy()


@pytest.mark.parametrize(("workers", "replicas"), [(1, 2), (4, 1)])
def test_an_epoch_is_proven_over_all_workers(shards: str, workers: int, replicas: int) -> None:
    options = {"workers": workers, "replicas": replicas, "epochs": 2}
    parts = parts_of(shards, **options)
    plain = parts_of(shards, receipt=False, **options)
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
    mixed = [part[1 : length + 1] for part in parts]  # a batch of the next epoch for one's own
    receipt = epoch_receipt(shards, total(mixed))
    assert (receipt.records, receipt.exact) == (STEPS * BATCH, False)


@pytest.mark.parametrize("step", [5, STEPS - 1, STEPS])
def test_a_resumed_epoch_is_proven_with_what_came_before(shards: str, step: int) -> None:
    [before] = parts_of(shards, epochs=1)
    resumed = parts_of(shards, workers=2, epochs=2, start_step=step)
    assert {len(part) for part in resumed} == {2 * STEPS - step}
    seen = total([before[:step], *(part[: STEPS - step] for part in resumed)])
    assert epoch_receipt(shards, seen).exact
    assert epoch_receipt(shards, total([part[STEPS - step :] for part in resumed])).exact


def test_every_record_is_evaluated(shards: str) -> None:
    parts = parts_of(shards, workers=2, training=False)
    receipt = epoch_receipt(shards, total(parts))
    assert (receipt.records, receipt.left_out, receipt.exact) == (331, 0, True)
    assert not epoch_receipt(shards, total([parts[0]])).exact


def test_a_split_that_fits(make_id_shards: Callable[..., Path]) -> None:
    """Where nothing is left out there is no tail."""
    shards = str(make_id_shards(96, num_shards=8, num_lanes=4))
    receipt = epoch_receipt(shards, total(parts_of(shards, epochs=1)))
    assert receipt.sentence() == "96 of 96 records, each read once"


@pytest.mark.parametrize("step", [-1, STEPS + 1])
def test_a_step_outside_of_the_epoch(shards: str, step: int) -> None:
    with pytest.raises(UserError, match=f"start_step {step} is not between 0 and the 13 steps"):
        parts_of(shards, start_step=step)
