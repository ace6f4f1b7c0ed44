"""The benchmark takes as many batches from the graph as it counts, a few per call."""

from typing import Any

import pytest
import tensorflow as tf

from tenfold.data.reading import benchmark
from tenfold.data.reading.records.record_reader import TrainingBatch


def test_benchmark_counts_the_batches_it_takes() -> None:
    numbers = tf.data.Dataset.range(10**9)
    take = tf.function(benchmark._take, autograph=False)
    iterator = iter(numbers)
    count, decode_s = benchmark._take_for(0.2, iterator, take)
    assert (int(next(iterator)), decode_s) == (count, 0.0)

    iterator = iter(
        numbers.map(
            lambda number: TrainingBatch(
                (), number, tf.constant(0.25, tf.float64), tf.ones([]), tf.zeros([1, 3], tf.int64)
            )
        )
    )
    count, decode_s = benchmark._take_for(
        0.2, iterator, tf.function(benchmark._take, autograph=False)
    )
    assert (int(next(iterator).fingerprints), decode_s) == (count, 0.25 * count)


@pytest.mark.parametrize(
    ("seconds", "batch_s", "calls"),
    [
        # Slow batches are taken one by one, so that no call overruns the end by long.
        (3.0, 1.0, [1, 1, 1]),
        (0.0, 1.0, [1]),
        # Fast batches are taken in calls of about a tenth of a second.
        (0.5, 0.02, [1, 2, 4, 8, 4, 8]),
    ],
)
def test_benchmark_call_takes_a_tenth_of_a_second(
    monkeypatch: pytest.MonkeyPatch, seconds: float, batch_s: float, calls: list[int]
) -> None:
    class Clock:
        now = 1000.0

        def perf_counter(self) -> float:
            return self.now

    clock, taken = Clock(), []

    def take(iterator: Any, count: Any) -> tuple[int, float]:
        taken.append(int(count))
        clock.now += batch_s * int(count)
        return int(count), 0.0

    monkeypatch.setattr(benchmark, "time", clock)
    assert benchmark._take_for(seconds, None, take) == (sum(calls), 0.0)
    assert taken == calls
