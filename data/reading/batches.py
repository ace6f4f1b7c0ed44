"""The batches of one worker: its records in their order, parsed, decoded and fingerprinted.

Whole batches of records are parsed and decoded at once, as many batches side by side as there
are threads. Where images on local disks are decoded outside of TensorFlow's ops, the places of
records are shuffled, not the records (see `image_batches`); the order is the same. Memory: the
shuffle buffers (`shuffle_buffer_bytes` over all lanes of all workers, or only the places), and
(threads + replicas + 2) batches.
"""

from collections.abc import Sequence
from typing import Any, Final

import tensorflow as tf

from tenfold.data.format.manifest import LABEL, ShardInfo
from tenfold.data.reading.decoding.augment_options import NO_AUGMENT
from tenfold.data.reading.decoding.decoders import ImageDecoder
from tenfold.data.reading.graph_records import (
    BatchReader,
    GraphReader,
    batch_parser,
    empty_batch,
    zero,
)
from tenfold.data.reading.image_records import ImageReader
from tenfold.data.reading.order import (
    BEGINNING,
    Position,
    ShuffleOrder,
    lane_buffer_records,
    ordered_record_ids,
    ordered_records,
    plain_graph,
    reading_plan,
    shuffled_record_ids,
    shuffled_records,
)
from tenfold.data.reading.read_config import ReadConfig, reading_options
from tenfold.data.reading.shard_index import ShardIndex
from tenfold.data.storage.folder import is_url

# What a batch holds besides its features: each record's weight (evaluation only) and
# fingerprint (0 for no record), and the seconds that parsing and decoding it took.
WEIGHT: Final = "weight"

FINGERPRINT: Final = "fingerprint"

DECODE_S: Final = "decode_s"

Batch = dict[str, tf.Tensor]


def raw_records(
    config: ReadConfig,
    *,
    start: Position = BEGINNING,
    epochs: int | None = None,
    tail: bool = False,
) -> tf.data.Dataset:
    """Returns a worker's raw records of training in their order, as string scalars.

    See `order.ShuffleOrder` for `start`, `epochs` and `tail`.
    """
    order = _order(config, start, epochs, tail)
    shards = config.shards(drop_remainder=True)
    return shuffled_records(
        shards,
        order,
        path_of=config.path_of,
        threads=config.parallel_batches,
        prefetcher=config.prefetcher(shards.shards, reading_plan(shards, order)),
    )


def _order(config: ReadConfig, start: Position, epochs: int | None, tail: bool) -> ShuffleOrder:
    split = config.manifest.split(config.split)
    num_lanes = config.manifest.num_lanes
    mean_bytes = split.num_bytes / max(1, split.num_records)
    return ShuffleOrder(
        seed=config.seed,
        num_lanes=num_lanes,
        buffer_records=lane_buffer_records(config.shuffle_buffer_bytes, num_lanes, mean_bytes),
        start=start,
        epochs=epochs,
        tail=tail,
    )


def training_batches(
    config: ReadConfig,
    *,
    start: Position = BEGINNING,
    epochs: int | None = None,
    tail: bool = False,
) -> tf.data.Dataset:
    """Returns a worker's training batches from `start` until `epochs` epochs are done.

    The elements are dicts of features with FINGERPRINT and DECODE_S; images are uint8. With
    `tail` each epoch's steps are followed by `WorkerShards.tail_steps` steps that hold nothing
    but the fingerprints of the records left out.
    """
    shards = config.shards(drop_remainder=True)
    size, replicas = config.replica_batch, config.replicas
    used = shards.steps_per_epoch * replicas
    per_epoch = used + (shards.tail_steps * replicas if tail else 0)
    files = _local_files(config, shards.shards)
    reader = _reader(config, files)

    @plain_graph
    def features(number: tf.Tensor, records: tf.Tensor) -> Batch:
        def left_out() -> Batch:
            prints = reader.fingerprints(records)
            return _batch(empty_batch(config.spec, size), prints, tf.zeros([], tf.float64))

        def trained_on() -> Batch:
            return _batch(*reader(records, number // per_epoch))

        if per_epoch == used:
            return _shaped(trained_on(), size)
        return _shaped(tf.cond(number % per_epoch < used, trained_on, left_out), size)

    first = start.epoch * per_epoch + start.step * replicas
    if files is None:
        records = raw_records(config, start=start, epochs=epochs, tail=tail)
    else:
        order = _order(config, start, epochs, tail)
        records = shuffled_record_ids(
            shards, order, first_record_id=lambda name: files.first_record_id(config.path_of(name))
        )
    batches = records.batch(size, drop_remainder=True).enumerate(first)
    batches = _mapped(batches, features, config)
    if epochs is None:
        batches = batches.apply(
            tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
        )
    return _finished(batches, config)


def _local_files(config: ReadConfig, shards: Sequence[ShardInfo]) -> ShardIndex | None:
    """Returns the shards to read records from by their places, None where TensorFlow reads.

    That is where images are decoded by TensorFlow or there are none, and on remote storage.
    """
    sizes = {config.path_of(shard.name): shard.bytes for shard in shards}
    if any(map(is_url, sizes)) or not isinstance(config.decode(), ImageDecoder):
        return None
    return ShardIndex(sizes)


def _reader(config: ReadConfig, files: ShardIndex | None) -> BatchReader:
    decoder = config.decode()
    augment = config.augment if config.spec.image_shape is not None else NO_AUGMENT
    if isinstance(decoder, ImageDecoder):
        return ImageReader(config.spec, decoder, augment=augment, seed=config.seed, files=files)
    return GraphReader(batch_parser(config.spec, decoder), augment, config.seed)


def _batch(features: Batch, prints: tf.Tensor, seconds: tf.Tensor) -> Batch:
    return {**features, FINGERPRINT: prints, DECODE_S: seconds}


def evaluation_batches(config: ReadConfig) -> tf.data.Dataset:
    """Returns a worker's part of a split once, as dicts of features with WEIGHT.

    The number of batches is the same on every worker; what pads them has weight 0.
    """
    size = config.replica_batch
    shards = config.shards(drop_remainder=False)
    files = _local_files(config, shards.shards)
    reader = _reader(config, files)

    @plain_graph
    def features(records: tf.Tensor) -> Batch:
        return _pad(_batch(*reader(records, None)), size)

    if files is None:
        records = ordered_records(
            shards.shards,
            path_of=config.path_of,
            threads=config.parallel_batches,
            prefetcher=config.prefetcher(shards.shards, (shard.name for shard in shards.shards)),
        )
    else:
        records = ordered_record_ids(
            shards.shards, first_record_id=lambda name: files.first_record_id(config.path_of(name))
        )
    batches = _mapped(records.batch(size), features, config)
    total = shards.steps_per_epoch * config.replicas
    own = -(-shards.num_records // size)
    filler = tf.data.Dataset.from_tensors(_zeros(batches.element_spec)).repeat(total - own)
    return _finished(batches.concatenate(filler), config)


def _mapped(records: tf.data.Dataset, features: Any, config: ReadConfig) -> tf.data.Dataset:
    """One batch more than there are threads: a thread that is done early need not wait."""
    calls = config.parallel_batches + 1
    return records.map(features, num_parallel_calls=calls, deterministic=True)


def _finished(batches: tf.data.Dataset, config: ReadConfig) -> tf.data.Dataset:
    options = reading_options(config.parallel_batches)
    return batches.prefetch(config.replicas + 1).with_options(options)


def _shaped(batch: Batch, size: int) -> Batch:
    return {
        name: value if name == DECODE_S else tf.ensure_shape(value, [size, *value.shape[1:]])
        for name, value in batch.items()
    }


def _pad(batch: Batch, size: int) -> Batch:
    have = tf.shape(batch[FINGERPRINT])[0]
    batch = {**batch, WEIGHT: tf.ones([have], tf.float32)}

    def pad(value: tf.Tensor) -> tf.Tensor:
        rows = [[0, size - have]] + [[0, 0]] * (value.shape.rank - 1)
        return tf.pad(value, rows, constant_values=zero(value.dtype))

    return _shaped({n: v if n == DECODE_S else pad(v) for n, v in batch.items()}, size)


def _zeros(spec: dict[str, tf.TensorSpec]) -> Batch:
    return {name: tf.fill(value.shape, zero(value.dtype)) for name, value in spec.items()}


def split_batch(batch: Batch) -> tuple[Any, tf.Tensor | None, tf.Tensor | None]:
    """Returns (x, y, weight) of a batch, images as float32 from 0 to 255.

    y and weight are None where it has none.
    """
    rest = {
        name: tf.cast(value, tf.float32) if value.dtype == tf.uint8 else value
        for name, value in batch.items()
        if name not in (LABEL, WEIGHT, FINGERPRINT, DECODE_S)
    }
    inputs = next(iter(rest.values())) if len(rest) == 1 else rest
    return inputs, batch.get(LABEL), batch.get(WEIGHT)
