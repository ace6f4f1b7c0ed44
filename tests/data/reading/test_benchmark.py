"""Taking batches in a graph to measure reading: as many as are counted, a few at a time."""

from typing import Any

import pytest
import tensorflow as tf

from tenfold.data.reading import benchmark as bench


def test_as_many_are_taken_as_are_counted() -> None:
    numbers = tf.data.Dataset.range(10**9)
    take = tf.function(bench._taken, autograph=False)
    iterator = iter(numbers)
    count, decode_s = bench._take_for(0.2, iterator, take)
    assert (int(next(iterator)), decode_s) == (count, 0.0)

    iterator = iter(
        numbers.map(lambda number: {"number": number, "decode_s": tf.constant(0.25, tf.float64)})
    )
    count, decode_s = bench._take_for(0.2, iterator, tf.function(bench._taken, autograph=False))
    assert (int(next(iterator)["number"]), decode_s) == (count, 0.25 * count)


@pytest.mark.parametrize(
    ("seconds", "batch_s", "calls"),
    [
        # What is slow is taken one by one: no call goes on for long after the end.
        (3.0, 1.0, [1, 1, 1]),
        (0.0, 1.0, [1]),
        # What is quick, in calls of about a tenth of a second.
        (0.5, 0.02, [1, 2, 4, 8, 4, 8]),
    ],
)
def test_a_call_takes_about_a_tenth_of_a_second(
    monkeypatch: pytest.MonkeyPatch, seconds: float, batch_s: float, calls: list[int]
) -> None:
    class Clock:
        now = 1000.0

        def perf_counter(self) -> float:
            return self.now

    clock, taken = Clock(), []

    def take(iterator: Any, count: Any) -> float:
        taken.append(int(count))
        clock.now += batch_s * int(count)
        return 0.0

    monkeypatch.setattr(bench, "time", clock)
    assert bench._take_for(seconds, None, take) == (sum(calls), 0.0)
    assert taken == calls
