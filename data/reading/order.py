"""The order in which a lane's records are read: fixed by (seed, epoch, lane) alone.

A lane's shards are taken in an order of their own in every epoch, a few of them interleaved,
and the raw records pass a shuffle buffer. All of it runs inside the tf.data graph, is
deterministic with any number of threads, and moves records without parsing them, so that
skipping to a step costs no more than reading the bytes before it.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import tensorflow as tf

from tenfold.data.format.manifest import ShardInfo
from tenfold.data.planning.lanes import WorkerShards
from tenfold.data.reading.shard_index import NO_RECORD
from tenfold.data.runtime.tensorflow_hooks import guarded_callback
from tenfold.data.storage.prefetch import ShardPrefetcher

# How many of a lane's shards are read side by side, and how many records of one before the
# next. Part of the order: changing either changes which records a batch holds.
SHARDS_ABREAST: Final = 4
BLOCK_RECORDS: Final = 16

READ_BUFFER_BYTES: Final = 1 << 20

# AutoGraph would spend longer on converting these functions than on building their graphs.
plain_graph = tf.autograph.experimental.do_not_convert


@dataclass(frozen=True)
class Position:
    """Where a run stands: `step` steps of `epoch` are done (both counted from 0)."""

    epoch: int = 0
    step: int = 0


BEGINNING: Final = Position()


@dataclass(frozen=True)
class ShuffleOrder:
    """What fixes the order of a lane's records, and where reading begins and ends.

    `buffer_records` is the size of one lane's shuffle buffer. With `tail`, each epoch's steps
    are followed by the records that it leaves out, `WorkerShards.tail_steps` steps of them,
    filled up with empty strings. `epochs` is how many epochs the run has; None never ends.
    """

    seed: int
    num_lanes: int
    buffer_records: int
    start: Position = BEGINNING
    epochs: int | None = None
    tail: bool = False


def lane_buffer_records(buffer_bytes: int, num_lanes: int, mean_record_bytes: float) -> int:
    """Returns the records in one lane's shuffle buffer, at least 1.

    `buffer_bytes` is what all lanes hold together, whatever the number of workers.
    """
    return max(1, int(buffer_bytes / num_lanes / max(1.0, mean_record_bytes)))


def shuffled_records(
    shards: WorkerShards,
    order: ShuffleOrder,
    *,
    path_of: Callable[[str], str],
    threads: int,
    prefetcher: ShardPrefetcher | None = None,
) -> tf.data.Dataset:
    """Returns the raw records of a worker's lanes for the epochs from `order.start` on.

    Elements are string scalars: `lane_batch` records of the worker's first lane, as many of
    the next, and so on; then again from the first. `path_of` gives a shard's path by its name,
    `prefetcher` brings what lies at that path here.
    """
    read = _read_shard if prefetcher is None else _staged_reader(prefetcher)
    return _shuffled(shards, order, _Elements(path_of, read, "", min(threads, 2)), threads)


def shuffled_record_ids(
    shards: WorkerShards, order: ShuffleOrder, *, first_record_id: Callable[[str], int]
) -> tf.data.Dataset:
    """Returns the places of what `shuffled_records` returns, int64 scalars, in the same order.

    `first_record_id` gives the place of a shard's first record by the shard's name; the others
    follow it (see `shard_files`). What fills up is NO_RECORD.
    """
    return _shuffled(
        shards, order, _Elements(first_record_id, _count_shard, NO_RECORD, None), None
    )


@dataclass(frozen=True)
class _Elements:
    """What is put into order: `source` gives where a shard is by its name, and `read` makes of
    that and its number of records the data set of its elements. `nothing` is no record.
    """

    source: Callable[[str], str | int]
    read: Callable[[tf.Tensor, tf.Tensor], tf.data.Dataset]
    nothing: str | int
    threads: int | None

    def constant(self, value: Any) -> tf.Tensor:
        """Returns the tensor of sources or elements."""
        return tf.constant(value, tf.string if self.nothing == "" else tf.int64)


def _shuffled(
    shards: WorkerShards, order: ShuffleOrder, elements: _Elements, threads: int | None
) -> tf.data.Dataset:
    return tf.data.Dataset.range(len(shards.lanes)).interleave(
        _lane_reader(shards, order, elements),
        cycle_length=len(shards.lanes),
        block_length=shards.lane_batch,
        num_parallel_calls=threads and min(threads, len(shards.lanes)),
        deterministic=threads is not None or None,
    )


def reading_plan(shards: WorkerShards, order: ShuffleOrder) -> Iterator[str]:
    """Yields the names of a worker's shards in about the order in which they are opened."""
    last = itertools.count(order.start.epoch)
    epochs = last if order.epochs is None else range(order.start.epoch, order.epochs)
    for epoch in epochs:
        turns = []
        for lane in shards.lanes:
            with tf.device("CPU:0"):
                stream = tf.constant(epoch * order.num_lanes + lane.index, tf.int64)
                turn, _ = _turn(len(lane.shards), order.seed, stream)
            turns.append([lane.shards[int(at)].name for at in turn])
        for together in itertools.zip_longest(*turns):
            yield from (name for name in together if name is not None)


def _lane_reader(
    shards: WorkerShards, order: ShuffleOrder, elements: _Elements
) -> Callable[[tf.Tensor], tf.data.Dataset]:
    """Returns the function from a lane's place among the worker's to its raw records."""
    sources = elements.constant(
        [[elements.source(s.name) for s in lane.shards] for lane in shards.lanes]
    )
    counts = tf.constant([[s.records for s in lane.shards] for lane in shards.lanes], tf.int64)
    numbers = tf.constant([lane.index for lane in shards.lanes], tf.int64)
    used = shards.steps_per_epoch * shards.lane_batch
    length = used + shards.tail_steps * shards.lane_batch if order.tail else used
    last = order.epochs if order.epochs is not None else tf.int64.max

    @plain_graph
    def one_lane(at: tf.Tensor) -> tf.data.Dataset:
        @plain_graph
        def one_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
            stream = epoch * order.num_lanes + numbers[at]
            records = _one_epoch(sources[at], counts[at], stream, order, elements)
            if order.tail:
                missing = tf.maximum(length - tf.reduce_sum(counts[at]), 0)
                nothing = tf.data.Dataset.from_tensors(elements.constant(elements.nothing))
                records = records.concatenate(nothing.repeat(missing))
            done = tf.where(epoch == order.start.epoch, order.start.step * shards.lane_batch, 0)
            return records.take(length).skip(tf.cast(done, tf.int64))

        return tf.data.Dataset.range(order.start.epoch, last).flat_map(one_epoch)

    return one_lane


def _one_epoch(
    sources: tf.Tensor,
    counts: tf.Tensor,
    stream: tf.Tensor,
    order: ShuffleOrder,
    elements: _Elements,
) -> tf.data.Dataset:
    # What the user gives tf.random.set_seed would otherwise change the order.
    tf.compat.v1.get_default_graph().seed = 1
    turn, seed = _turn(tf.shape(sources)[0], order.seed, stream)
    files = tf.data.Dataset.from_tensor_slices((tf.gather(sources, turn), tf.gather(counts, turn)))
    records = _interleaved(files, elements)
    return records.shuffle(order.buffer_records, seed=seed, reshuffle_each_iteration=False)


def _turn(
    num_shards: int | tf.Tensor, seed: int, stream: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the order of a lane's shards in an epoch, int32 [num_shards], and another draw."""
    draws = tf.random.stateless_uniform(
        [num_shards + 1],
        tf.stack([tf.constant(seed, tf.int64), stream]),
        minval=None,
        maxval=None,
        dtype=tf.int64,
        alg="philox",
    )
    return tf.argsort(draws[1:], stable=True), draws[0]


def ordered_records(
    shards: Sequence[ShardInfo],
    *,
    path_of: Callable[[str], str],
    threads: int,
    prefetcher: ShardPrefetcher | None = None,
) -> tf.data.Dataset:
    """Returns the raw records of `shards` once, in a fixed order."""
    read = _read_shard if prefetcher is None else _staged_reader(prefetcher)
    return _ordered(shards, _Elements(path_of, read, "", min(threads, SHARDS_ABREAST)))


def ordered_record_ids(
    shards: Sequence[ShardInfo], *, first_record_id: Callable[[str], int]
) -> tf.data.Dataset:
    """Returns the places of what `ordered_records` returns, int64 scalars, in the same order."""
    return _ordered(shards, _Elements(first_record_id, _count_shard, NO_RECORD, None))


def _ordered(shards: Sequence[ShardInfo], elements: _Elements) -> tf.data.Dataset:
    sources = elements.constant([elements.source(shard.name) for shard in shards])
    counts = tf.constant([shard.records for shard in shards], tf.int64)
    return _interleaved(tf.data.Dataset.from_tensor_slices((sources, counts)), elements)


def _interleaved(files: tf.data.Dataset, elements: _Elements) -> tf.data.Dataset:
    return files.interleave(
        elements.read,
        cycle_length=SHARDS_ABREAST,
        block_length=BLOCK_RECORDS,
        num_parallel_calls=elements.threads,
        deterministic=elements.threads is not None or None,
    )


@plain_graph
def _count_shard(first: tf.Tensor, records: tf.Tensor) -> tf.data.Dataset:
    return tf.data.Dataset.range(first, first + records)


@plain_graph
def _read_shard(path: tf.Tensor, records: tf.Tensor) -> tf.data.Dataset:
    """A file that was cut between two records ends early without an error: it is counted."""
    dataset = tf.data.TFRecordDataset(path, buffer_size=READ_BUFFER_BYTES)
    return dataset.apply(tf.data.experimental.assert_cardinality(records))


def _staged_reader(
    prefetcher: ShardPrefetcher,
) -> Callable[[tf.Tensor, tf.Tensor], tf.data.Dataset]:
    """Returns `_read_shard` for shards that `prefetcher` brings, each closed when it was read."""

    @guarded_callback
    def opened(path: bytes) -> bytes:
        return prefetcher.open(path.decode()).encode()

    @guarded_callback
    def close(path: bytes) -> np.int64:
        prefetcher.close(path.decode())
        return np.int64(0)

    @plain_graph
    def read(path: tf.Tensor, records: tf.Tensor) -> tf.data.Dataset:
        local = tf.numpy_function(opened, [path], tf.string)
        closing = plain_graph(lambda _: _nothing(tf.numpy_function(close, [path], tf.int64)))
        end = tf.data.Dataset.range(1).flat_map(closing)
        return _read_shard(tf.ensure_shape(local, []), records).concatenate(end)

    return read


def _nothing(zero: tf.Tensor) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensors("").repeat(tf.ensure_shape(zero, []))
