"""The order in which a lane's records are read: fixed by (seed, epoch, lane) alone.

A lane's shards are taken in an order of their own in every epoch, a few of them interleaved,
and the raw records pass a shuffle buffer. All of it runs inside the tf.data graph, is
deterministic with any number of threads, and moves records without parsing them, so that
skipping to a step costs no more than reading the bytes before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import tensorflow as tf

from tenfold.data.lanes import WorkerShards

# How many of a lane's shards are read side by side, and how many records of one before the
# next. Part of the order: changing either changes which records a batch holds.
SHARDS_ABREAST: Final = 4
BLOCK_RECORDS: Final = 16

READ_BUFFER_BYTES: Final = 1 << 20


@dataclass(frozen=True)
class Position:
    """Where a run stands: `step` steps of `epoch` are done (both counted from 0)."""

    epoch: int = 0
    step: int = 0


BEGINNING: Final = Position()


def lane_buffer_records(buffer_bytes: int, num_lanes: int, mean_record_bytes: float) -> int:
    """Returns the records in one lane's shuffle buffer, at least 1.

    `buffer_bytes` is what all lanes hold together, whatever the number of workers.
    """
    return max(1, int(buffer_bytes / num_lanes / max(1.0, mean_record_bytes)))


def shuffled_records(
    shards: WorkerShards,
    folder: str,
    *,
    num_lanes: int,
    seed: int,
    buffer_records: int,
    start: Position,
    epochs: int | None,
    threads: int,
) -> tf.data.Dataset:
    """Returns the raw records of a worker's lanes for the epochs from `start` on.

    Elements are string scalars: `lane_batch` records of the worker's first lane, as many of
    the next, and so on; then again from the first. `epochs` None never ends.
    """
    paths = tf.constant([[f"{folder}/{s.name}" for s in lane.shards] for lane in shards.lanes])
    lane_numbers = tf.constant([lane.index for lane in shards.lanes], tf.int64)
    per_epoch = shards.steps_per_epoch * shards.lane_batch
    last = epochs if epochs is not None else tf.int64.max

    def one_lane(at: tf.Tensor) -> tf.data.Dataset:
        def one_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
            stream = epoch * num_lanes + lane_numbers[at]
            records = _one_epoch(paths[at], seed, stream, buffer_records, min(threads, 2))
            done = tf.where(epoch == start.epoch, start.step * shards.lane_batch, 0)
            return records.take(per_epoch).skip(tf.cast(done, tf.int64))

        return tf.data.Dataset.range(start.epoch, last).flat_map(one_epoch)

    lanes = tf.data.Dataset.range(len(shards.lanes))
    return lanes.interleave(
        one_lane,
        cycle_length=len(shards.lanes),
        block_length=shards.lane_batch,
        num_parallel_calls=min(threads, len(shards.lanes)),
        deterministic=True,
    )


def _one_epoch(
    paths: tf.Tensor, seed: int, stream: tf.Tensor, buffer_records: int, threads: int
) -> tf.data.Dataset:
    # What the user gives tf.random.set_seed would otherwise change the order.
    tf.compat.v1.get_default_graph().seed = 1
    key = tf.stack([tf.constant(seed, tf.int64), stream])
    draws = tf.random.stateless_uniform(
        tf.shape(paths), key, minval=None, maxval=None, dtype=tf.int64, alg="philox"
    )
    files = tf.data.Dataset.from_tensor_slices(tf.gather(paths, tf.argsort(draws, stable=True)))
    records = files.interleave(
        _read_shard,
        cycle_length=SHARDS_ABREAST,
        block_length=BLOCK_RECORDS,
        num_parallel_calls=threads,
        deterministic=True,
    )
    return records.shuffle(buffer_records, seed=seed + stream, reshuffle_each_iteration=False)


def ordered_records(files: Sequence[str], folder: str, *, threads: int) -> tf.data.Dataset:
    """Returns the raw records of `files` once, in a fixed order."""
    paths = tf.data.Dataset.from_tensor_slices([f"{folder}/{name}" for name in files])
    return paths.interleave(
        _read_shard,
        cycle_length=SHARDS_ABREAST,
        block_length=BLOCK_RECORDS,
        num_parallel_calls=min(threads, SHARDS_ABREAST),
        deterministic=True,
    )


def _read_shard(path: tf.Tensor) -> tf.data.Dataset:
    return tf.data.TFRecordDataset(path, buffer_size=READ_BUFFER_BYTES)
