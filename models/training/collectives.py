"""Sums, flags and barriers over all workers, through tf.functions that are made once.

Making a tf.function at each call would trace it again at each call: TensorFlow then warns of
retracing, and a graph of collectives is built and kept per epoch.
"""

from collections.abc import Sequence
from typing import Final

import tensorflow as tf

from tenfold.models.train_config import TrainConfig

# Integers that are summed together, at least.
_INTS_AT_ONCE: Final = 16


def communication_options(config: TrainConfig) -> tf.distribute.experimental.CommunicationOptions:
    """Return TensorFlow's options for the exchange of gradients."""
    implementations = tf.distribute.experimental.CommunicationImplementation
    return tf.distribute.experimental.CommunicationOptions(
        bytes_per_pack=config.pack_bytes,
        timeout_seconds=config.collective_timeout_s or None,
        implementation=implementations[config.collective.upper()],
    )


def sum_over_workers(strategy: tf.distribute.Strategy, value: tf.Tensor) -> tf.Tensor:
    """Return the sum of every worker's `value`; to be called on all workers, in a graph.

    float32 and float64 are summed as they are, int64 modulo 2**64.
    """
    if strategy.num_replicas_in_sync == 1:
        return value

    def replica(own: tf.Tensor) -> tf.Tensor:
        context = tf.distribute.get_replica_context()
        # Only one replica of each worker adds its worker's value.
        first = context.replica_id_in_sync_group % _local_replicas(strategy) == 0
        added = tf.where(first, own, tf.zeros_like(own))
        return context.all_reduce(tf.distribute.ReduceOp.SUM, added)

    return strategy.experimental_local_results(strategy.run(replica, args=(value,)))[0]


def _local_replicas(strategy: tf.distribute.Strategy) -> int:
    return len(strategy.extended.worker_devices)


class WorkerCollectives:
    """Collectives outside of the training step; every method blocks until all workers call it.

    Args:
      strategy: the strategy that joins the workers.
      worker: index of this worker.
      num_workers: the number of workers under `strategy`.
    """

    def __init__(self, strategy: tf.distribute.Strategy, *, worker: int, num_workers: int) -> None:
        self._worker = worker
        self._num_workers = num_workers

        def summed(value: tf.Tensor) -> tf.Tensor:
            return sum_over_workers(strategy, value)

        self.summed = tf.function(summed, autograph=False)

    def sum_ints(self, *values: int) -> tuple[int, ...]:
        """Return the sums of 64-bit integers over the workers, modulo 2**64."""
        # One length for nearly all calls: each length is traced anew.
        missing = -len(values) % _INTS_AT_ONCE
        wrapped = [value % 2**64 for value in (*values, *[0] * missing)]
        signed = [value - 2**64 if value >= 2**63 else value for value in wrapped]
        summed = self.summed(tf.constant(signed, tf.int64))
        return tuple(int(value) % 2**64 for value in summed.numpy()[: len(values)])

    def sum_float(self, value: float) -> float:
        """Return the sum of a float64 over the workers."""
        return float(self.summed(tf.constant([value], tf.float64)).numpy()[0])

    def any_worker(self, flag: bool) -> bool:
        """Return True if `flag` is true on any worker."""
        return self.sum_ints(int(flag))[0] > 0

    def barrier(self) -> None:
        """Wait until all workers have called this method."""
        self.sum_ints(0)

    def gather(self, row: Sequence[float]) -> list[tuple[float, ...]]:
        """Return the `row` of every worker, by worker index; rows have the same length."""
        empty = [0.0] * len(row)
        table = [row if index == self._worker else empty for index in range(self._num_workers)]
        summed = self.summed(tf.constant(table, tf.float64))
        return [tuple(values) for values in summed.numpy().tolist()]
