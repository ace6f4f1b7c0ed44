"""The records of some shards in their order, once, without padding: for predictions."""

from collections.abc import Sequence

import tensorflow as tf

from tenfold.data.format.manifest import ShardInfo
from tenfold.data.reading.batches import open_reader, reading_options
from tenfold.data.reading.read_config import ReadConfig
from tenfold.data.reading.records.record_reader import RecordBatch
from tenfold.data.reading.records.shard_elements import plain_graph


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

    threads = config.parallel_batches
    batches = records.map(read, num_parallel_calls=threads + 1, deterministic=True)
    return batches.prefetch(2).with_options(reading_options(threads))
