"""Collectives over the workers: their results, and that they are traced once."""

import pytest
import tensorflow as tf

from tenfold.models.train_config import TrainConfig
from tenfold.models.training.collectives import WorkerCollectives, communication_options


@pytest.fixture
def collectives() -> WorkerCollectives:
    return WorkerCollectives(tf.distribute.get_strategy(), worker=0, num_workers=1)


def test_sums_of_one_worker_are_its_values(collectives: WorkerCollectives) -> None:
    assert collectives.sum_ints(2**64 - 1, 2**63, -1) == (2**64 - 1, 2**63, 2**64 - 1)
    assert collectives.sum_float(0.1) == 0.1
    assert collectives.gather((0.25, 3.0)) == [(0.25, 3.0)]
    assert [collectives.any_worker(flag) for flag in (True, False)] == [True, False]


def test_options_of_the_exchange_are_those_of_the_configuration() -> None:
    tuned = communication_options(
        TrainConfig("s", "r", collective="ring", pack_bytes=4_000_000, collective_timeout_s=7.5)
    )
    assert (tuned.bytes_per_pack, tuned.timeout_seconds) == (4_000_000, 7.5)
    assert tuned.implementation == tf.distribute.experimental.CommunicationImplementation.RING
    plain = communication_options(TrainConfig("s", "r"))
    assert (plain.bytes_per_pack, plain.timeout_seconds) == (0, None)
    assert plain.implementation == tf.distribute.experimental.CommunicationImplementation.AUTO


def test_collectives_are_traced_once_per_shape(collectives: WorkerCollectives) -> None:
    for epoch in range(8):
        collectives.gather((0.5, float(epoch), 1.0))
        collectives.sum_ints(epoch, epoch, epoch)
        collectives.sum_ints(epoch, epoch)
        collectives.any_worker(epoch > 4)
        collectives.sum_float(float(epoch))
        collectives.barrier()
    # A row, a few integers (flags and barriers too), a float.
    assert collectives.summed.experimental_get_tracing_count() == 3
