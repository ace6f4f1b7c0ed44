"""Memory that is used again: never while somebody still looks at it."""

import gc
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from tenfold.data.reading.decoding import buffers as kept_memory
from tenfold.data.reading.decoding.buffers import BatchBufferPool, ThreadBuffer


def _base(array: Any) -> int:
    while array.base is not None:
        array = array.base
    return int(array.ctypes.data)


def test_a_batch_is_aligned_and_its_own_until_it_is_dropped() -> None:
    batches = BatchBufferPool()
    first, second = batches.array((3, 5, 7)), batches.array((3, 5, 7))
    assert first.shape == (3, 5, 7)
    assert first.ctypes.data % 64 == second.ctypes.data % 64 == 0
    assert not np.shares_memory(first, second)
    place, row = _base(first), first[1]
    del first
    assert _base(batches.array((3, 5, 7))) != place, "a part of it is still in use"
    del row
    assert _base(batches.array((2, 5, 7))) == place
    assert _base(batches.array((300, 5, 7))) != place, "there is not enough of it"


def test_what_tensorflow_holds_is_left_alone() -> None:
    import tensorflow as tf

    batches = BatchBufferPool()

    def fill(number: Any) -> Any:
        out = batches.array((64, 64))
        out[...] = number
        return out

    dataset = tf.data.Dataset.range(200).map(
        lambda number: tf.numpy_function(fill, [number], tf.uint8, stateful=False),
        num_parallel_calls=4,
    )
    dataset = dataset.prefetch(3)
    held = []
    for number, tensor in enumerate(dataset):
        held.append((number, tensor))
        for was, seen in held:
            assert np.all(seen.numpy() == was)
        if len(held) > 5:
            held.pop(random.randrange(5))
    del dataset, held, tensor, seen
    gc.collect()
    assert 5 <= len(batches._kept) <= 20


def test_batches_of_several_threads_never_meet() -> None:
    batches, clash = BatchBufferPool(), threading.Event()

    def work(number: int) -> None:
        for _ in range(300):
            out = batches.array((1000,))
            out[...] = number
            view = out[10:]
            del out
            if not np.all(view == number):
                clash.set()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert not clash.is_set()
    assert len(batches._kept) <= 16, "each has two at most: the last and the next"


def test_no_more_is_kept_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_memory, "MAX_BATCHES", 2)
    monkeypatch.setattr(kept_memory, "MAX_BYTES", 100)
    batches = BatchBufferPool()
    many = [batches.array((8,)) for _ in range(5)]
    assert len({_base(one) for one in many}) == 5
    assert len(batches._kept) == 2
    kept = ThreadBuffer()
    assert _base(kept.of(80)) == _base(kept.of(60))
    assert kept.of(300).size == 300
    assert kept.of(80).size == 80, "what is larger than the limit is given back"
