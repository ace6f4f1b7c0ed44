"""The names of the records in a global batch, from the order of reading alone.

Reads no record, unless they are dealt by length: the order of the record numbers is that of the
records, because it depends only on the seed, the epoch and the counts of the manifest.
"""

from collections.abc import Sequence
from dataclasses import replace

import tensorflow as tf

from tenfold.data.reading.batches import raw_records, shuffle_order
from tenfold.data.reading.mixing.mixture import Mixture
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


def step_records(mixture: Mixture, position: Position) -> tuple[str, ...]:
    """Return the names of the records of a step, worker by worker.

    Each worker's part has the records of the first data set first, with the data set's name
    before those of a shard where there are several.

    Args:
      mixture: what any of the workers reads.
      position: the epoch, and the steps of it before the batch.
    """
    if not mixture.is_mixed:
        return global_batch_records(mixture.first, position)
    found, positions = [], mixture.positions(position)
    for name, member, place in zip(mixture.names, mixture.members, positions, strict=True):
        found.append([f"{name}/{record}" for record in global_batch_records(member, place)])
    names: list[str] = []
    for worker in range(mixture.first.place.num_workers):
        own = mixture.at(WorkerPlace(worker, mixture.first.place.num_workers))
        for records, member, place in zip(found, own.members, positions, strict=True):
            count = member.shards.records(place.step)
            names += records[:count]
            del records[:count]
    return tuple(names)


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
