"""The training batches of one data set, or of a mixture, of one worker."""

from typing import Any

import tensorflow as tf

from tenfold.data.errors import UserError
from tenfold.data.reading.batches import feed_of, reading_options, training_batches
from tenfold.data.reading.mixing.mixture import Mixture
from tenfold.data.reading.read_options import BEGINNING, Position
from tenfold.data.reading.receipts import fold_tails
from tenfold.data.reading.records.record_reader import TrainingBatch
from tenfold.data.reading.records.shard_elements import plain_graph


def mixed_batches(
    mixture: Mixture, *, start: Position = BEGINNING, epochs: int | None = None, tail: bool = False
) -> tf.data.Dataset:
    """Return a worker's training batches from `start` until `epochs` epochs are done.

    In a mixture, each part of a step has the records of the first data set, then those of the
    next one, and so on; the counts have a row for each, and the last step of a pass counts its
    leftover records too.

    Args:
      mixture: what the worker reads.
      start: where reading begins.
      epochs: epochs of the run; None never ends.
      tail: with one data set, let each epoch's steps be followed by those of leftover records.

    Returns:
      `TrainingBatch` elements.

    Raises:
      UserError: the user's function makes other tensors of the records of each data set.
    """
    if not mixture.is_mixed:
        return training_batches(mixture.first, start=start, epochs=epochs, tail=tail)
    _check_same_tensors(mixture)
    batches = []
    for index, position in enumerate(mixture.positions(start)):
        member, end = mixture.members[index], epochs if index == 0 else None
        found = training_batches(member, start=position, epochs=end, tail=True)
        batches.append(fold_tails(found, member, start=position, epochs=end))
    weights = [member.global_batch_size / mixture.global_batch_size for member in mixture.members]

    @plain_graph
    def join(*parts: TrainingBatch) -> TrainingBatch:
        fed = tf.nest.map_structure(_joined, *(part.fed for part in parts))
        shares = [part.share * weight for part, weight in zip(parts, weights, strict=True)]
        return TrainingBatch(
            fed,
            _joined(*(part.fingerprints for part in parts)),
            tf.add_n([part.decode_s for part in parts]),
            tf.ones([]) if is_even else tf.add_n(shares),
            tf.concat([part.counts for part in parts], axis=0),
        )

    is_even = mixture.is_even(mixture.first.place.replicas)
    zipped = tf.data.Dataset.zip(tuple(batches)).map(join)
    options = reading_options(mixture.first.parallel_batches)
    return zipped.prefetch(mixture.first.place.replicas + 1).with_options(options)


def _joined(*values: Any) -> Any:
    return tf.concat(values, axis=0)


def _check_same_tensors(mixture: Mixture) -> None:
    specs = [feed_of(member).element_spec for member in mixture.members]
    for spec, name in zip(specs[1:], mixture.names[1:], strict=True):
        if spec != specs[0]:
            raise UserError(
                f"--map makes {spec} of the records of '{name}', and {specs[0]} of those of "
                f"'{mixture.names[0]}': let it return tensors of the same shapes and types"
            )
