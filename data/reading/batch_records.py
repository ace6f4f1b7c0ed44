"""The names of the records in a global batch, from the order of reading alone.

Reads no record, unless they are dealt by length: the order of the record numbers is that of the
records, because it depends only on the seed, the epoch and the counts of the manifest.
"""

from collections.abc import Sequence
from dataclasses import replace

import tensorflow as tf

from tenfold.data.reading.batches import raw_records, shuffle_order
from tenfold.data.reading.ordering.order import shuffled_elements, without_fillers
from tenfold.data.reading.read_config import ReadConfig
from tenfold.data.reading.read_options import Position, WorkerPlace
from tenfold.data.reading.records.shard_elements import counted_elements
from tenfold.data.reading.records.shard_index import split_record_id


def global_batch_records(config: ReadConfig, position: Position) -> tuple[str, ...]:
    """Return ``SHARD record INDEX`` for each record of the global batch at `position`.

    The records of worker 0 come first, then those of worker 1, and so on; indexes count from 0.

    Args:
      config: what any of the workers reads.
      position: the epoch, and the steps of it before the batch.
    """
    everything = replace(config, place=WorkerPlace())
    shards = everything.shards
    if config.options.bucket or config.options.balance:
        return _names_of_payloads(everything, position)
    names = [shard.name for shard in shards.shards]
    order = shuffle_order(everything, position, None, tail=False)
    elements = counted_elements(names)
    step = shuffled_elements(shards, order, elements).batch(shards.max_records).take(1)
    batch = without_fillers(step.get_single_element(), elements)
    return _record_names(names, batch.numpy().tolist())


def _names_of_payloads(config: ReadConfig, position: Position) -> tuple[str, ...]:
    """Return the names of a step's records where the order depends on what they hold."""
    count = config.shards.records(position.step)
    payloads = list(raw_records(config, start=position).take(count).as_numpy_iterator())
    names = dict.fromkeys(payloads, "")
    for shard in config.shards.shards:
        path = config.path_of(shard.name)
        for index, payload in enumerate(tf.data.TFRecordDataset(path).as_numpy_iterator()):
            if payload in names and not names[payload]:
                names[payload] = f"{shard.name} record {index}"
    return tuple(names[payload] for payload in payloads)


def _record_names(names: Sequence[str], record_ids: Sequence[int]) -> tuple[str, ...]:
    places = map(split_record_id, record_ids)
    return tuple(f"{names[shard]} record {index}" for shard, index in places)
