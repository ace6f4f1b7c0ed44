"""The order in which a lane's records are read: fixed by (seed, epoch, lane) alone.

Every epoch takes a lane's shards in another order, interleaves a few of them, and passes their
elements through a shuffle buffer. All of it runs inside the tf.data graph, is deterministic with
any number of threads, and moves raw records without parsing them: skipping to a step costs no
more than reading the bytes before it.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
import tensorflow as tf

from tenfold.data.format.manifest import ShardInfo
from tenfold.data.planning.class_balance import Balance
from tenfold.data.planning.lanes import REPEAT, WorkerShards
from tenfold.data.reading.ordering.balancing import with_copies
from tenfold.data.reading.ordering.bucketing import WINDOW_STEPS, Bucket, in_buckets
from tenfold.data.reading.ordering.record_order import ChunkedEpochs, interleaved, shuffled
from tenfold.data.reading.ordering.step_parts import StepParts
from tenfold.data.reading.read_options import BEGINNING, Position
from tenfold.data.reading.records.shard_elements import ShardElements, plain_graph
from tenfold.data.runtime.tensorflow_hooks import guarded_callback

# Shards of a lane that are interleaved, and records taken from one before the next. Both are part
# of the order: changing them changes which records a batch holds.
SHARDS_ABREAST: Final = 4
BLOCK_RECORDS: Final = 16

# The draws of copies in a further pass of an epoch are those of an epoch that is so much later.
_PASS_STEP: Final = 7919

# Shards of one lane that are read in parallel; lanes are read in parallel too.
_THREADS_PER_LANE: Final = 2


@dataclass(frozen=True)
class ShuffleOrder:
    """What fixes the order of a lane's records, and where reading begins and ends.

    Args:
      seed: the run's seed.
      num_lanes: lanes of the shards, over all workers.
      buffer_records: records in one lane's shuffle buffer.
      start: where reading begins.
      epochs: epochs of the run; None never ends.
      tail: let each epoch's steps be followed by the leftover records, in
        `WorkerShards.tail_steps` steps.
      bucket: deals the records of some steps to these by length; None leaves them as they come.
        The elements must be raw records then.
      balance: how often each record is read; None for once. The same.
    """

    seed: int
    num_lanes: int
    buffer_records: int
    start: Position = BEGINNING
    epochs: int | None = None
    tail: bool = False
    bucket: Bucket | None = None
    balance: Balance | None = None

    @property
    def first_step(self) -> int:
        """The step of the first epoch that lanes are read from: a window begins with it."""
        step = self.start.step
        return step if self.bucket is None else step - step % WINDOW_STEPS

    def steps(self, shards: WorkerShards) -> int:
        """Return the steps that are read of each epoch."""
        return shards.steps_per_epoch + (shards.tail_steps if self.tail else 0)


def lane_buffer_records(buffer_bytes: int, num_lanes: int, mean_record_bytes: float) -> int:
    """Return the records in one lane's shuffle buffer, at least 1.

    Args:
      buffer_bytes: memory of all lanes' buffers together, on any number of workers.
      num_lanes: lanes of the shards.
      mean_record_bytes: mean size of a record.
    """
    return max(1, int(buffer_bytes / num_lanes / max(1.0, mean_record_bytes)))


def shuffled_elements(
    shards: WorkerShards, order: ShuffleOrder, elements: ShardElements
) -> tf.data.Dataset:
    """Return the elements of a worker's lanes for the epochs from `order.start` on.

    Each step has `BatchShares.max_lane_records` elements of the worker's first lane, as many of
    the next lane, and so on. Where a lane gives less, fillers follow its elements.
    """
    return tf.data.Dataset.range(len(shards.lanes)).interleave(
        _lane_reader(shards, order, elements),
        cycle_length=len(shards.lanes),
        block_length=shards.shares.max_lane_records,
        **elements.interleave_options(len(shards.lanes)),
    )


def shuffled_batches(
    shards: WorkerShards, order: ShuffleOrder, elements: ShardElements, parts: StepParts
) -> tf.data.Dataset:
    """Return the elements of `shuffled_elements` as the batches of the worker's replicas.

    Without the fillers, where the size of the batches is not fixed.
    """
    if elements.are_ids:
        return _id_batches(shards, order, elements, parts)
    records = shuffled_elements(shards, order, elements)
    if parts.size is not None:
        return records.batch(parts.size, drop_remainder=True)

    @plain_graph
    def split(step: tf.Tensor) -> tf.data.Dataset:
        found = without_fillers(step, elements)
        bounds = tf.range(parts.replicas + 1) * tf.size(found) // parts.replicas
        replicas = tf.data.Dataset.range(parts.replicas)
        return replicas.map(plain_graph(lambda index: found[bounds[index] : bounds[index + 1]]))

    return records.batch(shards.max_records, drop_remainder=True).flat_map(split)


def without_fillers(found: tf.Tensor, elements: ShardElements) -> tf.Tensor:
    """Return the elements [n] that stand for records."""
    return tf.boolean_mask(found, found != elements.constant(elements.filler))


def ordered_elements(shards: Sequence[ShardInfo], elements: ShardElements) -> tf.data.Dataset:
    """Return the elements of `shards` once, in a fixed order."""
    locations = elements.constant([elements.locate(shard.name) for shard in shards])
    counts = tf.constant([shard.records for shard in shards], tf.int64)
    files = tf.data.Dataset.from_tensor_slices((locations, counts))
    return _interleave(files, elements, max_threads=SHARDS_ABREAST)


def _id_batches(
    shards: WorkerShards, order: ShuffleOrder, elements: ShardElements, parts: StepParts
) -> tf.data.Dataset:
    """Return the batches of `shuffled_batches` where the elements are record ids, int64 [n]."""

    def draw(lane: int, epoch: int) -> tuple[list[int], int]:
        with tf.device("CPU:0"):
            stream = tf.constant(epoch * order.num_lanes + shards.lanes[lane].index, tf.int64)
            shard_order, seed = _draw_order(len(shards.lanes[lane].shards), order.seed, stream)
        return shard_order.numpy().tolist(), int(seed)

    def lane_ids(number: int, epoch: int) -> Iterator[Any]:
        lane = shards.lanes[number]
        shard_order, seed = draw(number, epoch)
        firsts = [int(elements.locate(lane.shards[index].name)) for index in shard_order]
        counts = [lane.shards[index].records for index in shard_order]
        found = interleaved(firsts, counts, abreast=SHARDS_ABREAST, block=BLOCK_RECORDS)
        return shuffled(found, sum(counts), buffer=order.buffer_records, seed=seed)

    def all_passes(number: int, epoch: int) -> Iterator[Any]:
        yield from lane_ids(number, epoch)
        while shards.remainder == REPEAT:
            yield from lane_ids(number, epoch)

    def lanes(epoch: int) -> list[Iterator[Any]]:
        return [all_passes(number, epoch) for number in range(len(shards.lanes))]

    chunks = ChunkedEpochs(
        lanes, parts.lane_counts, steps=order.steps(shards),
        step_ids=shards.max_records, filler=int(elements.filler),
    )  # fmt: skip

    @guarded_callback
    def take(number: Any) -> tuple[Any, Any]:
        ids, counts = chunks.chunk(int(number))
        return ids, parts.sizes(counts)

    @plain_graph
    def read_chunk(number: tf.Tensor) -> tf.Tensor | tf.RaggedTensor:
        ids, sizes = tf.numpy_function(take, [number], [tf.int64, tf.int64], stateful=False)
        if parts.size is not None:
            return tf.reshape(ids, [-1, parts.size])
        ids, sizes = tf.ensure_shape(ids, [None]), tf.ensure_shape(sizes, [None])
        return tf.RaggedTensor.from_row_lengths(ids, sizes, validate=False)

    skipped, done = divmod(order.start.step, chunks.steps_per_chunk)
    first = order.start.epoch * chunks.chunks_per_epoch + skipped
    end = tf.int64.max if order.epochs is None else order.epochs * chunks.chunks_per_epoch
    numbers = tf.data.Dataset.range(first, end)
    return numbers.map(read_chunk).prefetch(1).unbatch().skip(done * parts.replicas)


def ordered_id_batches(
    shards: Sequence[ShardInfo], elements: ShardElements, size: int
) -> tf.data.Dataset:
    """Return the elements of `ordered_elements`, which are record ids, in batches of `size`."""
    firsts = [int(elements.locate(shard.name)) for shard in shards]
    counts = [shard.records for shard in shards]

    @guarded_callback
    def read(begin: Any) -> Any:
        return all_ids()[int(begin) : int(begin) + size]

    @cache
    def all_ids() -> Any:
        found = interleaved(firsts, counts, abreast=SHARDS_ABREAST, block=BLOCK_RECORDS)
        return np.concatenate(list(found))

    @plain_graph
    def batch(begin: tf.Tensor) -> tf.Tensor:
        ids = tf.numpy_function(read, [begin], tf.int64, stateful=False)
        return tf.ensure_shape(ids, [None])

    return tf.data.Dataset.range(0, sum(counts), size).map(batch)


def reading_plan(shards: WorkerShards, order: ShuffleOrder) -> Iterator[str]:
    """Yield the names of a worker's shards in about the order in which they are opened."""
    endless = itertools.count(order.start.epoch)
    epochs = endless if order.epochs is None else range(order.start.epoch, order.epochs)
    for epoch in epochs:
        names = []
        for lane in shards.lanes:
            with tf.device("CPU:0"):
                stream = tf.constant(epoch * order.num_lanes + lane.index, tf.int64)
                shard_order, _ = _draw_order(len(lane.shards), order.seed, stream)
            names.append([lane.shards[int(index)].name for index in shard_order])
        for of_all_lanes in itertools.zip_longest(*names):
            yield from (name for name in of_all_lanes if name is not None)


def _lane_reader(
    shards: WorkerShards, order: ShuffleOrder, elements: ShardElements
) -> Callable[[tf.Tensor], tf.data.Dataset]:
    """Return the function from an index among the worker's lanes to the lane's elements."""
    locations = elements.constant(
        [[elements.locate(shard.name) for shard in lane.shards] for lane in shards.lanes]
    )
    counts = tf.constant([[s.records for s in lane.shards] for lane in shards.lanes], tf.int64)
    lane_numbers = tf.constant([lane.index for lane in shards.lanes], tf.int64)
    shares, steps = shards.shares, order.steps(shards)
    lengths = tf.constant([shares.taken(lane.index, steps) for lane in shards.lanes], tf.int64)
    skipped = tf.constant(
        [shares.taken(lane.index, order.first_step) for lane in shards.lanes], tf.int64
    )
    end_epoch = order.epochs if order.epochs is not None else tf.int64.max

    @plain_graph
    def read_lane(lane: tf.Tensor) -> tf.data.Dataset:
        @plain_graph
        def read_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
            stream = epoch * order.num_lanes + lane_numbers[lane]
            if order.balance is None:
                records = _shuffle_epoch(locations[lane], counts[lane], stream, order, elements)
            else:
                records = tf.data.Dataset.range(tf.int64.max).flat_map(balanced_pass(epoch))
            filler = tf.data.Dataset.from_tensors(elements.constant(elements.filler))
            if shards.remainder == REPEAT:
                records = records.repeat()
            elif order.steps(shards) > shards.full_steps:
                missing = tf.maximum(lengths[lane] - tf.reduce_sum(counts[lane]), 0)
                records = records.concatenate(filler.repeat(missing))
            is_first = epoch == order.start.epoch
            records = records.take(lengths[lane]).skip(tf.where(is_first, skipped[lane], 0))
            if not shares.are_equal:
                places = _share_places(shards, lane_numbers[lane])
                begin = tf.where(is_first, tf.constant(order.first_step, tf.int64), 0)
                choices = tf.data.Dataset.range(begin, steps).flat_map(places)
                records = tf.data.Dataset.choose_from_datasets(
                    [records, filler.repeat()], choices, stop_on_empty_dataset=False
                )
            return records if order.bucket is None else bucketed(records, epoch, is_first)

        def balanced_pass(epoch: tf.Tensor) -> Callable[[tf.Tensor], tf.data.Dataset]:
            """Return the function from the number of a pass in an epoch to its records.

            The copies of a pass may be fewer than the records of an epoch.
            """
            stream = epoch * order.num_lanes + lane_numbers[lane]

            @plain_graph
            def read_pass(number: tf.Tensor) -> tf.data.Dataset:
                draw = epoch + number * _PASS_STEP
                return _shuffle_epoch(
                    locations[lane], counts[lane], stream, order, elements, draw=draw
                )

            return read_pass

        @plain_graph
        def bucketed(
            records: tf.data.Dataset, epoch: tf.Tensor, is_first: tf.Tensor
        ) -> tf.data.Dataset:
            assert order.bucket is not None
            first = tf.where(is_first, tf.constant(order.first_step, tf.int64), 0)
            dealt = in_buckets(
                records,
                order.bucket,
                step_records=shares.max_lane_records,
                first_step=first,
                epoch=epoch,
            )
            done = (order.start.step - order.first_step) * shares.max_lane_records
            return dealt.skip(tf.where(is_first, tf.constant(done, tf.int64), 0))

        return tf.data.Dataset.range(order.start.epoch, end_epoch).flat_map(read_epoch)

    return read_lane


def _share_places(shards: WorkerShards, lane: tf.Tensor) -> Callable[[tf.Tensor], tf.data.Dataset]:
    """Return the function from a step to what a lane's places in it hold.

    That is 0 for each record that the lane gives, then 1 for a filler up to the largest share.
    """
    shares = shards.shares

    @plain_graph
    def places(step: tf.Tensor) -> tf.data.Dataset:
        given = shares.taken(lane, step + 1) - shares.taken(lane, step)
        row = tf.range(shares.max_lane_records, dtype=tf.int64)
        return tf.data.Dataset.from_tensor_slices(tf.cast(row >= given, tf.int64))

    return places


def _shuffle_epoch(
    locations: tf.Tensor,
    counts: tf.Tensor,
    stream: tf.Tensor,
    order: ShuffleOrder,
    elements: ShardElements,
    draw: tf.Tensor | None = None,
) -> tf.data.Dataset:
    # Otherwise the seed that the user gives tf.random.set_seed would change the order.
    tf.compat.v1.get_default_graph().seed = 1
    shard_order, seed = _draw_order(tf.shape(locations)[0], order.seed, stream)
    files = tf.data.Dataset.from_tensor_slices(
        (tf.gather(locations, shard_order), tf.gather(counts, shard_order))
    )
    records = _interleave(files, elements, max_threads=_THREADS_PER_LANE)
    if order.balance is not None:
        records = with_copies(records, order.balance, seed=order.seed, draw=draw)
    return records.shuffle(order.buffer_records, seed=seed, reshuffle_each_iteration=False)


def _draw_order(
    num_shards: int | tf.Tensor, seed: int, stream: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the order of a lane's shards in an epoch, int32 [num_shards], and a buffer seed."""
    draws = tf.random.stateless_uniform(
        [num_shards + 1],
        tf.stack([tf.constant(seed, tf.int64), stream]),
        minval=None,
        maxval=None,
        dtype=tf.int64,
        alg="philox",
    )
    return tf.argsort(draws[1:], stable=True), draws[0]


def _interleave(
    files: tf.data.Dataset, elements: ShardElements, *, max_threads: int
) -> tf.data.Dataset:
    # Without threads, a shard is opened when its first element is due; see `read_ahead`.
    threads = {} if elements.read_ahead else elements.interleave_options(max_threads)
    return files.interleave(
        elements.open_shard,
        cycle_length=SHARDS_ABREAST,
        block_length=BLOCK_RECORDS,
        **threads,
    )
