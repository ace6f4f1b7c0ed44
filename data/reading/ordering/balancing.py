"""Balanced classes: records of rare classes are read several times an epoch, others not always.

A record is read as often as makes all classes equally frequent, on average over the epochs: of
0.3 copies, in three of ten epochs. Which epochs these are follows from the seed and the record
alone, so the batches are the same on any number of workers.
"""

from typing import Final

import tensorflow as tf

from tenfold.data.planning.class_balance import Balance
from tenfold.data.reading.records.parse_features import parse_features
from tenfold.data.reading.records.shard_elements import plain_graph

# Records whose classes are parsed in one call.
_BLOCK: Final = 256

# The fractional parts of the multiples of the golden ratio are spread evenly; in units of 2**-32.
_UNIT: Final = 2**32
_GOLDEN: Final = 2654435769
_SEED_STEP: Final = 1640531527


def with_copies(
    records: tf.data.Dataset, balance: Balance, *, seed: int, draw: tf.Tensor
) -> tf.data.Dataset:
    """Return raw records, each as often as it is read in a pass, with copies side by side.

    Args:
      records: string scalars.
      balance: how often they are read on average.
      seed: the run's seed.
      draw: int64 scalar, the number of the pass.
    """
    means = tf.constant(balance.copies, tf.float64)

    @plain_graph
    def copy(found: tf.Tensor) -> tf.Tensor:
        label = parse_features(found, [balance.feature], {})[balance.feature.name]
        number = tf.strings.to_hash_bucket_fast(found, _UNIT)
        shifted = number + draw * _GOLDEN + seed % _UNIT * _SEED_STEP
        fraction = tf.cast(tf.math.floormod(shifted, _UNIT), tf.float64) / _UNIT
        copies = tf.cast(tf.floor(tf.gather(means, label) + fraction), tf.int64)
        return tf.repeat(found, copies)

    return records.batch(_BLOCK).map(copy).unbatch()
