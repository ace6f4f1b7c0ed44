"""Buffers are reused, but never while an array or a tensor refers to them."""

import gc
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from tenfold.data.reading.decoding import buffers
from tenfold.data.reading.decoding.buffers import (
    MAX_FREE_BUFFERS,
    BatchBufferPool,
    ThreadBuffer,
)


def address(array: Any) -> int:
    return int(array.ctypes.data)


def test_batch_is_aligned_and_reused_after_its_last_view() -> None:
    pool = BatchBufferPool()
    first, second = pool.take((3, 5, 7)), pool.take((3, 5, 7))
    assert first.shape == (3, 5, 7)
    assert first.dtype == np.uint8
    assert first.flags.c_contiguous
    assert first.flags.writeable
    assert first.ctypes.data % 64 == second.ctypes.data % 64 == 0
    assert not np.shares_memory(first, second)
    memory, view = address(first), first[1][:, 2:]
    del first
    assert address(pool.take((3, 5, 7))) != memory, "a view still uses it"
    del view
    assert address(pool.take((2, 5, 7))) == memory
    assert address(pool.take((300, 5, 7))) != memory, "it is too small"


@pytest.mark.parametrize(
    "refer",
    [
        lambda batch: batch.T[0],
        lambda batch: batch.reshape(-1).view(np.int8)[3:],
        lambda batch: np.asarray(batch)[..., None],
        lambda batch: memoryview(batch)[1:],
        lambda batch: np.frombuffer(batch, np.uint8),
        lambda batch: list(batch),
        lambda batch: np.array([batch, None], object),
    ],
    ids=["transposed", "reshaped", "asarray", "memoryview", "frombuffer", "rows", "object"],
)
def test_every_kind_of_view_keeps_the_memory(refer: Any) -> None:
    pool = BatchBufferPool()
    batch = pool.take((8, 8))
    memory, view = address(batch), refer(batch)
    del batch
    assert address(pool.take((8, 8))) != memory
    del view
    gc.collect()
    assert memory in {address(pool.take((8, 8))) for _ in range(2)}


def test_tensors_keep_their_memory() -> None:
    import tensorflow as tf

    pool = BatchBufferPool()
    taken = set()

    def fill(number: Any) -> Any:
        batch = pool.take((64, 64))
        taken.add(address(batch))
        batch[...] = number
        return batch

    dataset = tf.data.Dataset.range(200).map(
        lambda number: tf.numpy_function(fill, [number], tf.uint8, stateful=False),
        num_parallel_calls=4,
    )
    dataset = dataset.prefetch(3)
    held = []
    for number, tensor in enumerate(dataset):
        held.append((number, tensor))
        for expected, kept in held:
            assert np.all(kept.numpy() == expected)
        if len(held) > 5:
            held.pop(random.randrange(5))
    assert 5 <= len(taken) <= 25, "memory was not reused"
    del dataset, held, tensor, kept
    gc.collect()
    assert 5 <= len(pool._free) <= 25, "memory did not come back"


def test_threads_never_share_a_batch() -> None:
    pool, clash, taken = BatchBufferPool(), threading.Event(), set()

    def work(number: int) -> None:
        for _ in range(300):
            batch = pool.take((1000,))
            taken.add(address(batch))
            batch[...] = number
            view = batch[10:]
            del batch
            if not np.all(view == number):
                clash.set()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    assert not clash.is_set()
    assert len(taken) <= 32, "each thread has two at most: the last and the next"


def test_garbage_cycles_give_memory_back() -> None:
    """The finalizer may run in any thread, at any allocation."""
    pool = BatchBufferPool()
    for _ in range(100):
        cycle: list[Any] = [pool.take((1000,))]
        cycle.append(cycle)
        del cycle
    gc.collect()
    assert len(pool._free) >= 1


def test_pool_keeps_at_most_its_limit() -> None:
    pool = BatchBufferPool()
    batches = [pool.take((8,)) for _ in range(MAX_FREE_BUFFERS + 5)]
    assert len({address(batch) for batch in batches}) == MAX_FREE_BUFFERS + 5
    del batches
    assert len(pool._free) == MAX_FREE_BUFFERS


def test_thread_buffer_keeps_no_large_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffers, "MAX_THREAD_BUFFER_BYTES", 100)
    buffer = ThreadBuffer()
    assert address(buffer.get(80)) == address(buffer.get(60))
    assert buffer.get(300).size == 300
    assert buffer.get(80).size == 80
