"""What passes through the shuffled order: the raw records of shards, or only their record ids."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import tensorflow as tf

from tenfold.data.reading.records.shard_index import INDEX_BITS, NO_RECORD, ShardIndex
from tenfold.data.runtime.tensorflow_hooks import guarded_callback
from tenfold.data.storage.prefetch import ShardPrefetcher

READ_BUFFER_BYTES: Final = 1 << 20

# Records that a fetched shard reads ahead, in a thread of its own: two blocks of the interleave.
_READ_AHEAD_RECORDS: Final = 32

# Converting these functions by AutoGraph would take longer than building their graphs.
plain_graph = tf.autograph.experimental.do_not_convert


@dataclass(frozen=True)
class ShardElements:
    """The elements of shards.

    Args:
      locate: gives a shard's path, or the id of its first record, by the shard's name.
      open_shard: gives the elements of a shard, from its location and its number of records.
      filler: the element that stands for no record; it fills up batches.
      threads: how many shards may be read in parallel; None where nothing is read.
      read_ahead: whether each shard reads ahead by itself. Then it may be opened as late as its
        first element is due, by an interleave without threads, and still be read in parallel.
    """

    locate: Callable[[str], str | int]
    open_shard: Callable[[tf.Tensor, tf.Tensor], tf.data.Dataset]
    filler: str | int
    threads: int | None
    read_ahead: bool = False

    @property
    def are_ids(self) -> bool:
        """Whether the elements are record ids."""
        return not isinstance(self.filler, str)

    def constant(self, value: Any) -> tf.Tensor:
        """Return `value`, locations or elements, as a tensor."""
        return tf.constant(value, tf.string if isinstance(self.filler, str) else tf.int64)

    def interleave_options(self, max_threads: int) -> dict[str, Any]:
        """Return the options of a deterministic interleave with at most `max_threads`."""
        if self.threads is None:
            return {}
        calls = min(self.threads, max_threads)
        return {"num_parallel_calls": calls, "deterministic": True}


def record_elements(
    path_of: Callable[[str], str], *, threads: int, prefetcher: ShardPrefetcher | None
) -> ShardElements:
    """Return raw records, string scalars; "" is no record.

    Args:
      path_of: gives a shard's path by its name.
      threads: shards read in parallel.
      prefetcher: fetches the shards at those paths; None where TensorFlow reads the paths.
    """
    if prefetcher is None:
        return ShardElements(path_of, _read_shard, "", threads)
    return ShardElements(path_of, _prefetched_reader(prefetcher), "", threads, read_ahead=True)


def record_id_elements(path_of: Callable[[str], str], index: ShardIndex) -> ShardElements:
    """Return the record ids in `index`, int64 scalars, in the order of the raw records."""
    return ShardElements(
        lambda name: index.first_record_id(path_of(name)), _count_ids, NO_RECORD, None
    )


def counted_elements(names: Sequence[str]) -> ShardElements:
    """Return the ids that records would have in an index of the shards `names`, none opened."""
    first_ids = {name: number << INDEX_BITS for number, name in enumerate(names)}
    return ShardElements(first_ids.__getitem__, _count_ids, NO_RECORD, None)


@plain_graph
def _count_ids(first: tf.Tensor, records: tf.Tensor) -> tf.data.Dataset:
    return tf.data.Dataset.range(first, first + records)


@plain_graph
def _read_shard(path: tf.Tensor, records: tf.Tensor) -> tf.data.Dataset:
    """Return a shard's records.

    They are counted, because TensorFlow gives no error for a file that was cut between two
    records.
    """
    dataset = tf.data.TFRecordDataset(path, buffer_size=READ_BUFFER_BYTES)
    return dataset.apply(tf.data.experimental.assert_cardinality(records))


def _prefetched_reader(
    prefetcher: ShardPrefetcher,
) -> Callable[[tf.Tensor, tf.Tensor], tf.data.Dataset]:
    """Return `_read_shard` for fetched shards; each is closed after its last record.

    A shard is pinned in the cache from its opening, so none is opened before it is due. An
    interleave with threads opens twice as many shards as it reads at once beside those: on a disk
    that holds little more than the shards read at once, these would keep the needed ones out.
    """

    @guarded_callback
    def open_local(path: bytes) -> bytes:
        return prefetcher.open(path.decode()).encode()

    @guarded_callback
    def close(path: bytes) -> np.int64:
        prefetcher.close(path.decode())
        return np.int64(0)

    @plain_graph
    def read(path: tf.Tensor, records: tf.Tensor) -> tf.data.Dataset:
        local = tf.numpy_function(open_local, [path], tf.string)
        closing = plain_graph(lambda _: _empty(tf.numpy_function(close, [path], tf.int64)))
        end = tf.data.Dataset.range(1).flat_map(closing)
        elements = _read_shard(tf.ensure_shape(local, []), records).concatenate(end)
        return elements.prefetch(_READ_AHEAD_RECORDS)

    return read


def _empty(zero: tf.Tensor) -> tf.data.Dataset:
    """Return no element; evaluating `zero` closes the shard."""
    return tf.data.Dataset.from_tensors("").repeat(tf.ensure_shape(zero, []))
