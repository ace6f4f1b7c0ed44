"""The order of record ids equals the order that tf.data gives to the elements themselves."""

from collections.abc import Sequence
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf

from tenfold.data.reading.ordering import record_order
from tenfold.data.reading.ordering.record_order import ChunkedEpochs, interleaved, shuffled


@pytest.mark.parametrize("chunk", [7, 5000])
@pytest.mark.parametrize(
    "counts",
    [
        (16,),  # a whole block: its end is found in the next turn
        (15, 17, 1, 48, 5, 32),
        (1, 1, 1, 1, 1, 100),
        (32, 16, 16, 48, 100, 5, 16, 1, 33),
    ],
)
def test_interleave_equals_tensorflow(counts: Sequence[int], chunk: int) -> None:
    firsts = [1000 * number for number in range(len(counts))]
    ranges = tf.data.Dataset.from_tensor_slices(
        (tf.constant(firsts, tf.int64), tf.constant(counts, tf.int64))
    )
    expected = ranges.interleave(
        lambda first, count: tf.data.Dataset.range(first, first + count),
        cycle_length=4,
        block_length=16,
    )
    with mock.patch.object(record_order, "_CHUNK_IDS", chunk):
        found = np.concatenate(list(interleaved(firsts, counts, abreast=4, block=16)))
    assert found.tolist() == [int(number) for number in expected.as_numpy_iterator()]


@pytest.mark.parametrize("large", [2, 10**9])  # exchanged together, and one by one
@pytest.mark.parametrize("chunk", [7, 640])
@pytest.mark.parametrize(
    ("total", "buffer", "seed"),
    [(10, 3, 5), (1000, 64, -5), (100, 1000, 2**40 + 3), (500, 1, 9), (700, 699, -(2**62))],
)
def test_shuffle_equals_tensorflow(
    total: int, buffer: int, seed: int, chunk: int, large: int
) -> None:
    @tf.autograph.experimental.do_not_convert
    def epoch(_: tf.Tensor) -> tf.data.Dataset:
        tf.compat.v1.get_default_graph().seed = 1
        numbers = tf.data.Dataset.range(total)
        seed_tensor = tf.constant(seed, tf.int64)
        return numbers.shuffle(buffer, seed=seed_tensor, reshuffle_each_iteration=False)

    expected = tf.data.Dataset.range(1).flat_map(epoch).as_numpy_iterator()
    arrays = iter(np.split(np.arange(total), range(chunk, total, chunk)))
    with (
        mock.patch.object(record_order, "_CHUNK_IDS", chunk),
        mock.patch.object(record_order, "_LARGE_BUFFER", large),
    ):
        found = np.concatenate(list(shuffled(arrays, total, buffer=buffer, seed=seed)))
    assert found.tolist() == [int(number) for number in expected]


def test_chunks_are_the_same_in_any_order_of_asking() -> None:
    def chunks() -> ChunkedEpochs:
        return ChunkedEpochs(
            lambda epoch: [iter([np.arange(10) + 100 * epoch]), iter([np.arange(7) + 50])],
            lambda begin, end: np.array([[2, 2], [2, 2], [1, 3], [3, 1], [2, 2]])[begin:end],
            steps=5,
            step_ids=4,
            filler=-1,
        )

    with mock.patch.object(record_order, "_CHUNK_IDS", 8):  # two steps, two steps, one step
        forward = chunks()
        found = [forward.chunk(number)[0].tolist() for number in range(6)]
        assert found[0] == [0, 1, 50, 51, 2, 3, 52, 53]
        assert found[1] == [4, 54, 55, 56, 5, 6, 7, -1]
        assert found[5] == [108, 109, -1, -1]
        assert forward.chunk(4)[1].tolist() == [4, 4]
        scattered = chunks()
        for number in (4, 1, 2, 1, 5, 0):
            assert scattered.chunk(number)[0].tolist() == found[number]
