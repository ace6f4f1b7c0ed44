"""Measurement of a worker's steps: their time, waiting, decoding and communication."""

import statistics
import time
from collections.abc import Sequence
from typing import Any

import tensorflow as tf


class Stopwatch:
    """Sums the times of one worker's calls of steps since the last `read`.

    The first call of a process compiles the step; it counts only if it is the only call.
    """

    def __init__(self) -> None:
        self._seconds = self._wait_s = self._decode_s = 0.0
        self._steps = 0
        self._first: tuple[int, float, float, float] | None = None
        self._warm = False

    def add(self, steps: int, seconds: float, *, wait_s: float, decode_s: float) -> None:
        """Add one call of `steps` steps that took `seconds`.

        Args:
          steps: steps of the call.
          seconds: wall time of the call.
          wait_s: seconds of it spent waiting for input.
          decode_s: seconds of parsing and decoding its batches, summed over threads.
        """
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
        """Return (wait share, decode share, seconds per step) and reset the sums.

        Args:
          parallel_batches: number of batches that the worker decodes at the same time.
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


def time_all_reduce(strategy: tf.distribute.Strategy, variables: Sequence[Any]) -> float:
    """Return the seconds of one all-reduce of gradients in the shapes of `variables`.

    Blocks until all workers call it. The first run opens the connections and does not count. The
    result is the median of three more, because other work on a host can delay a single run.
    """

    def replica() -> tf.Tensor:
        zeros = [tf.zeros(variable.shape, variable.dtype) for variable in variables]
        totals = tf.distribute.get_replica_context().all_reduce("SUM", zeros)
        return tf.add_n([tf.cast(tf.reduce_sum(total), tf.float32) for total in totals])

    @tf.function(autograph=False)
    def all_reduce() -> Any:
        return strategy.run(replica)

    def timed() -> float:
        began = time.monotonic()
        strategy.experimental_local_results(all_reduce())[0].numpy()
        return time.monotonic() - began

    timed()
    return statistics.median(timed() for _ in range(3))
