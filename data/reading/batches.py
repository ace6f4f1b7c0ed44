"""The batches of one worker: from shards, through the shuffled order, to tensors.

Whole batches of records are parsed and decoded at once, as many batches in parallel as there are
threads. Where images of local shards are decoded in Python, record ids pass through the shuffle
buffer instead of records (see `image_records`); the order is the same. Memory: the shuffle
buffers (`shuffle_buffer_bytes` over all lanes of all workers, or the ids only), and
(threads + replicas + 2) batches.

Where the parts of a batch differ in size, their batch dimension is not static.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeVar

import tensorflow as tf

from tenfold.data.format.manifest import ShardInfo
from tenfold.data.planning.lanes import REPEAT
from tenfold.data.reading.decoding.decoders import PythonDecoder, make_decoder
from tenfold.data.reading.feeding.feed import Feed, load_map
from tenfold.data.reading.feeding.input_spec import bucket_feature
from tenfold.data.reading.feeding.nested import (
    map_leaves,
    pad_rows,
    with_rows,
    zero,
    zeros_like_spec,
)
from tenfold.data.reading.ordering.bucketing import Bucket
from tenfold.data.reading.ordering.order import (
    ShuffleOrder,
    lane_buffer_records,
    ordered_elements,
    ordered_id_batches,
    reading_plan,
    shuffled_batches,
    shuffled_elements,
    without_fillers,
)
from tenfold.data.reading.ordering.step_parts import StepParts
from tenfold.data.reading.read_config import ReadConfig
from tenfold.data.reading.read_options import BEGINNING, Position
from tenfold.data.reading.records.graph_records import GraphRecordReader
from tenfold.data.reading.records.image_records import ImageRecordReader
from tenfold.data.reading.records.number_records import NumberRecordReader
from tenfold.data.reading.records.number_table import are_numbers
from tenfold.data.reading.records.payload_table import PayloadTable
from tenfold.data.reading.records.record_reader import (
    EvaluationBatch,
    RecordBatch,
    RecordReader,
    TrainingBatch,
)
from tenfold.data.reading.records.shard_elements import (
    ShardElements,
    plain_graph,
    record_elements,
    record_id_elements,
)
from tenfold.data.reading.records.shard_index import ShardIndex
from tenfold.data.storage.folder import is_url
from tenfold.data.storage.prefetch import ShardPrefetcher, needs_prefetch

AnyBatch = TypeVar("AnyBatch", TrainingBatch, EvaluationBatch)

# The configurations of the pipelines that this process made last: TensorFlow's errors about
# records do not tell which shards they are in. An append is atomic, so no lock is needed.
recent_configs: Final[deque[ReadConfig]] = deque(maxlen=8)


def training_batches(
    config: ReadConfig,
    *,
    start: Position = BEGINNING,
    epochs: int | None = None,
    tail: bool = False,
) -> tf.data.Dataset:
    """Return a worker's training batches from `start` until `epochs` epochs are done.

    Args:
      config: what the worker reads.
      start: where reading begins.
      epochs: epochs of the run; None never ends.
      tail: let each epoch's steps be followed by `WorkerShards.tail_steps` steps that hold
        only the fingerprints of the leftover records.

    Returns:
      `TrainingBatch` elements.
    """
    shards = config.shards
    _remember(config)
    order = shuffle_order(config, start, epochs, tail)
    reader = open_reader(config, shards.shards, plan=reading_plan(shards, order))
    parts = StepParts(shards, replicas=config.place.replicas, tail=tail)
    feed = feed_of(config)

    @plain_graph
    def read(number: tf.Tensor, records: tf.Tensor) -> TrainingBatch:
        epoch = number // parts.per_epoch

        def read_leftover() -> tuple[Any, ...]:
            empty = feed.empty(tf.size(records))
            return empty, reader.fingerprints(records), tf.zeros([], tf.float64)

        def read_records() -> tuple[Any, ...]:
            features, prints, decode_s = reader.read(records, epoch)
            partners = parts.partners(number) if feed.num_arguments > 2 else None
            return feed(features, prints, epoch, partners), prints, decode_s

        if parts.has_tail:
            fed, prints, decode_s = tf.cond(parts.is_leftover(number), read_leftover, read_records)
        else:
            fed, prints, decode_s = read_records()
        share = parts.share(number, tf.size(records, tf.int64))
        prints = parts.without_repeats(number, prints)
        counts = count_records(prints, parts.is_leftover(number))
        return _with_size(TrainingBatch(fed, prints, decode_s, share, counts), parts.size)

    records = shuffled_batches(shards, order, reader.elements, parts)
    first = start.epoch * parts.per_epoch + start.step * parts.replicas
    numbered = records.enumerate(first)
    # A group has parts of one size, and no repeats.
    fixed = parts.size is not None and shards.remainder != REPEAT and feed.function is None
    group = reader.records_at_once // parts.size if fixed and parts.size else 1
    if group > 1:
        batches = _map_groups(numbered.batch(group), reader, config, parts)
    else:
        batches = _map(numbered, read, config)
    if epochs is None:
        endless = tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
        batches = batches.apply(endless)
    return _finish(batches, config)


def evaluation_batches(config: ReadConfig) -> tf.data.Dataset:
    """Return a worker's part of a split once, as `EvaluationBatch` elements of a fixed size.

    The number of batches is the same on every worker.
    """
    shards = config.evaluation_shards
    _remember(config)
    names = (shard.name for shard in shards.shards)
    reader = open_reader(config, shards.shards, plan=names)
    size = config.evaluation_batch
    feed = feed_of(config)

    @plain_graph
    def read(records: tf.Tensor) -> EvaluationBatch:
        features, prints, decode_s = reader.read(records, None)
        present = tf.ones_like(prints, tf.float32)
        fed = feed(features, prints, None)
        return _padded(EvaluationBatch(fed, prints, decode_s, present), size)

    if reader.elements.are_ids:
        records = ordered_id_batches(shards.shards, reader.elements, size)
    else:
        records = ordered_elements(shards.shards, reader.elements).batch(size)
    batches = _map(records, read, config)
    total = config.evaluation_steps * config.place.replicas
    own = -(-shards.num_records // size)
    empty = zeros_like_spec(batches.element_spec)
    padding = tf.data.Dataset.from_tensors(empty).repeat(total - own)
    return _finish(batches.concatenate(padding), config)


def ordered_batches(
    config: ReadConfig, shards: Sequence[ShardInfo], batch_size: int
) -> tf.data.Dataset:
    """Return batches of the records of `shards`, one shard after the other.

    Evaluation interleaves shards. Here each batch has records of one shard.

    Args:
      config: how the shards are read; its place and batch size are not used.
      shards: shards of the manifest of `config`.
      batch_size: records of a batch; the last one of a shard may have fewer.

    Returns:
      `RecordBatch` elements.
    """
    reader = open_reader(config, shards, plan=(shard.name for shard in shards))
    elements = reader.elements
    locations = elements.constant([elements.locate(shard.name) for shard in shards])
    counts = tf.constant([shard.records for shard in shards], tf.int64)
    files = tf.data.Dataset.from_tensor_slices((locations, counts))
    records = files.flat_map(
        lambda location, count: elements.open_shard(location, count).batch(batch_size)
    )

    @plain_graph
    def read(found: tf.Tensor) -> RecordBatch:
        return reader.read(found, None)

    return _finish(_map(records, read, config), config)


def _remember(config: ReadConfig) -> None:
    if config in recent_configs:
        recent_configs.remove(config)
    recent_configs.append(config)


def raw_records(
    config: ReadConfig, *, start: Position = BEGINNING, epochs: int | None = None
) -> tf.data.Dataset:
    """Return a worker's raw training records in their order, as string scalars."""
    shards = config.shards
    order = shuffle_order(config, start, epochs, tail=False)
    elements = _raw_elements(config, shards.shards, reading_plan(shards, order))
    steps = shuffled_elements(shards, order, elements).batch(shards.max_records)
    return steps.map(plain_graph(lambda step: without_fillers(step, elements))).unbatch()


def open_reader(
    config: ReadConfig, shards: Sequence[ShardInfo], *, plan: Iterator[str], by_id: bool = True
) -> RecordReader:
    """Return the reader of a worker's shards: the one place that chooses among the three.

    Args:
      config: what the worker reads.
      shards: the shards that are read.
      plan: their names in the order of use, which remote shards are fetched in.
      by_id: read records of local shards by their ids where the decoder allows it.
    """
    shape = config.spec.image_shape
    decoder = None if shape is None else make_decoder(config.options.decoder, shape)
    augment, seed = config.augment, config.options.seed
    numbers = are_numbers(config.manifest.features)
    paths = {config.path_of(shard.name): shard for shard in shards}
    in_memory = shape is None and sum(s.bytes for s in shards) <= _share_of_memory(config)
    index = None
    can_use_ids = numbers or in_memory or isinstance(decoder, PythonDecoder)
    # Lengths and classes of records are needed for these, which ids do not tell.
    by_id = by_id and not (config.options.bucket or config.options.balance)
    if by_id and not any(map(is_url, paths)) and can_use_ids:
        index = ShardIndex({path: shard.bytes for path, shard in paths.items()})
    if numbers and index is not None:
        return NumberRecordReader(
            config.manifest.features,
            elements=record_id_elements(config.path_of, index),
            index=index,
            shards=list(paths.items()),
            max_bytes=_share_of_memory(config),
        )
    if in_memory and index is not None:
        return GraphRecordReader(
            config.spec,
            None,
            elements=record_id_elements(config.path_of, index),
            table=PayloadTable(list(paths.items()), index),
        )
    if not isinstance(decoder, PythonDecoder):
        elements = _raw_elements(config, shards, plan)
        return GraphRecordReader(
            config.spec, decoder, elements=elements, augment=augment, seed=seed
        )
    if index is None:
        elements = _raw_elements(config, shards, plan)
    else:
        elements = record_id_elements(config.path_of, index)
    return ImageRecordReader(
        config.spec, decoder, elements=elements, index=index, augment=augment, seed=seed
    )


def _share_of_memory(config: ReadConfig) -> int:
    """Return this worker's share of the memory of shuffle buffers, which ids hardly need."""
    return config.options.shuffle_buffer_bytes // config.place.num_workers


def _raw_elements(
    config: ReadConfig, shards: Sequence[ShardInfo], plan: Iterator[str]
) -> ShardElements:
    prefetcher = _prefetcher(config, shards, plan)
    return record_elements(config.path_of, threads=config.parallel_batches, prefetcher=prefetcher)


def _prefetcher(
    config: ReadConfig, shards: Sequence[ShardInfo], plan: Iterator[str]
) -> ShardPrefetcher | None:
    """Return the prefetcher of remote shards; None where TensorFlow reads them in place."""
    cache = config.options.cache
    paths = {config.path_of(shard.name): shard for shard in shards}
    # Even shards of a local folder may have moved to remote storage.
    remote = {path: shard for path, shard in paths.items() if is_url(path)}
    if not any(needs_prefetch(path, cache) for path in remote):
        return None
    remote_plan = (path for path in map(config.path_of, plan) if path in remote)
    return ShardPrefetcher(remote, remote_plan, cache)


def shuffle_order(
    config: ReadConfig, start: Position, epochs: int | None, tail: bool
) -> ShuffleOrder:
    """Return the order of the training records of `config`; see `training_batches`."""
    split = config.manifest.split(config.split)
    num_lanes = config.manifest.num_lanes
    mean_bytes = split.num_bytes / max(1, split.num_records)
    buffer_bytes = config.options.shuffle_buffer_bytes
    return ShuffleOrder(
        seed=config.options.seed,
        num_lanes=num_lanes,
        buffer_records=lane_buffer_records(buffer_bytes, num_lanes, mean_bytes),
        start=start,
        epochs=epochs,
        tail=tail,
        bucket=_bucket(config),
        balance=config.balance,
    )


def _bucket(config: ReadConfig) -> Bucket | None:
    options = config.options
    if not options.bucket:
        return None
    feature = bucket_feature(config.manifest, options.bucket)
    return Bucket(feature, options.seed, config.shards.steps_per_epoch)


def _map(
    records: tf.data.Dataset, read: Callable[..., Any], config: ReadConfig
) -> tf.data.Dataset:
    """Map with one call more than there are threads, so that no thread waits for its turn."""
    calls = config.parallel_batches + 1
    return records.map(read, num_parallel_calls=calls, deterministic=True)


def _map_groups(
    groups: tf.data.Dataset, reader: RecordReader, config: ReadConfig, parts: StepParts
) -> tf.data.Dataset:
    """Return the training batches of groups of (number, records), each group read in one call.

    All features are numbers of fixed shapes, and none is changed by a function of the user's.

    Args:
      groups: int64 [group] and elements [group, records of a batch].
      reader: reads them.
      config: what the worker reads.
      parts: the parts of the steps, all of one size.
    """
    feed = feed_of(config)

    @plain_graph
    def read_group(numbers: tf.Tensor, records: tf.Tensor) -> TrainingBatch:
        features, prints, decode_s = reader.read(tf.reshape(records, [-1]), None)
        is_leftover = parts.is_leftover(numbers)

        def split(value: tf.Tensor) -> tf.Tensor:
            return tf.reshape(value, [-1, parts.size, *value.shape[1:]])

        def without_leftover(value: tf.Tensor) -> tf.Tensor:
            value = split(value)
            cleared = tf.reshape(is_leftover, [-1] + [1] * (value.shape.rank - 1))
            return tf.where(cleared, zero(value.dtype), value) if parts.has_tail else value

        fed = map_leaves(without_leftover, feed(features, prints, None))
        count = tf.shape(numbers)[0]
        seconds = tf.fill([count], decode_s / tf.cast(count, tf.float64))
        share = parts.share(numbers, tf.fill([count], tf.constant(parts.size, tf.int64)))
        prints = split(prints)
        return TrainingBatch(fed, prints, seconds, share, count_records(prints, is_leftover))

    return _map(groups, read_group, config).unbatch()


def _finish(batches: tf.data.Dataset, config: ReadConfig) -> tf.data.Dataset:
    options = reading_options(config.parallel_batches)
    return batches.prefetch(config.place.replicas + 1).with_options(options)


def feed_of(config: ReadConfig) -> Feed:
    """Return what turns the features that `config` reads into what a model is fed.

    Raises:
      UserError: there is no such function as the options name.
    """
    function = config.options.map
    found = load_map(function) if isinstance(function, str) else function
    return Feed(config.spec, found, config.options.seed)


def count_records(fingerprints: tf.Tensor, is_leftover: tf.Tensor) -> tf.Tensor:
    """Return the counts of parts of steps, as `TrainingBatch` has them: int64 [parts …, 1, 3].

    Args:
      fingerprints: those of the records of each part, int64 [parts …, n]; 0 for no record.
      is_leftover: whether a part has leftover records, bool [parts …].
    """
    found = tf.math.count_nonzero(fingerprints, axis=-1)
    none = tf.zeros_like(found)
    rows = [
        tf.where(is_leftover, none, found),
        tf.where(is_leftover, found, none),
        tf.reduce_sum(fingerprints, axis=-1),
    ]
    return tf.stack(rows, axis=-1)[..., None, :]


def _with_size(batch: AnyBatch, size: int | None) -> AnyBatch:
    """Return the batch with its static size set, which may be unknown."""
    fed = map_leaves(lambda value: with_rows(value, size), batch.fed)
    return batch._replace(fed=fed, fingerprints=with_rows(batch.fingerprints, size))


def _padded(batch: EvaluationBatch, size: int) -> EvaluationBatch:
    """Return the batch with rows that stand for no record added up to `size`."""
    fed, prints, present = map_leaves(
        lambda value: with_rows(pad_rows(value, size), size),
        (batch.fed, batch.fingerprints, batch.present),
    )
    return EvaluationBatch(fed, prints, batch.decode_s, present)


def reading_options(threads: int) -> tf.data.Options:
    """Return the tf.data options of every pipeline.

    Autotune is off because it can stall for seconds when an iterator ends; auto-sharding is off
    because each worker's shards are already its own.
    """
    options = tf.data.Options()
    options.deterministic = True
    options.autotune.enabled = False
    options.threading.private_threadpool_size = threads
    options.threading.max_intra_op_parallelism = 1
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return options
