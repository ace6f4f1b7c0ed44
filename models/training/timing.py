"""How long a worker's steps take, wait and communicate."""

import statistics
import time
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tenfold.models.training.steps import sum_over_workers


class Stopwatch:
    """Adds up one worker's calls of steps since it was last read.

    The first call of a process is left out where there are others: it compiles.
    """

    def __init__(self) -> None:
        self._seconds = self._wait_s = self._decode_s = 0.0
        self._steps = 0
        self._first: tuple[int, float, float, float] | None = None
        self._warm = False

    def add(self, steps: int, seconds: float, *, wait_s: float, decode_s: float) -> None:
        """Takes in one call of `steps` steps."""
        if not self._warm:
            self._warm = True
            self._first = (steps, seconds, wait_s, decode_s)
            return
        self._add(steps, seconds, wait_s, decode_s)

    def _add(self, steps: int, seconds: float, wait_s: float, decode_s: float) -> None:
        self._steps += steps
        self._seconds += seconds
        self._wait_s += wait_s
        self._decode_s += decode_s

    def read(self, *, parallel_batches: int) -> tuple[float, float, float]:
        """Returns (wait share, decode share, seconds a step), and begins anew.

        `parallel_batches` is how many batches the worker decodes side by side.
        """
        if not self._steps and self._first:
            self._add(*self._first)
        seconds = max(self._seconds, 1e-9)
        result = (
            min(1.0, self._wait_s / seconds),
            min(1.0, self._decode_s / seconds / parallel_batches),
            seconds / max(1, self._steps),
        )
        self._seconds = self._wait_s = self._decode_s = 0.0
        self._steps, self._first = 0, None
        return result


def gather_over_workers(
    strategy: tf.distribute.Strategy, row: Sequence[float], *, worker: int, num_workers: int
) -> list[tuple[float, ...]]:
    """Returns every worker's `row`, by worker index; each worker must call it."""
    table = [list(row) if at == worker else [0.0] * len(row) for at in range(num_workers)]

    @tf.function(autograph=False)
    def total(mine: tf.Tensor) -> tf.Tensor:
        return sum_over_workers(strategy, mine)

    summed = total(tf.constant(table, tf.float64))
    return [tuple(values) for values in summed.numpy().tolist()]


def time_all_reduce(strategy: tf.distribute.Strategy, variables: Sequence[Any]) -> float:
    """Returns the seconds that summing gradients of `variables` over all replicas takes.

    Each worker must call it. The first run opens the connections; of three more the median
    counts, as one alone may be held up by whatever else a machine does.
    """

    def replica() -> tf.Tensor:
        zeros = [tf.zeros(variable.shape, variable.dtype) for variable in variables]
        totals = tf.distribute.get_replica_context().all_reduce("SUM", zeros)
        return tf.add_n([tf.cast(tf.reduce_sum(total), tf.float32) for total in totals])

    @tf.function(autograph=False)
    def run() -> Any:
        return strategy.run(replica)

    def timed() -> float:
        begun = time.monotonic()
        strategy.experimental_local_results(run())[0].numpy()
        return time.monotonic() - begun

    timed()
    return statistics.median(timed() for _ in range(3))
