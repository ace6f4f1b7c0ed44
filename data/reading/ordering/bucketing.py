"""Length bucketing: batches of records of similar length, the same on any number of workers.

The steps of an epoch are divided into windows. Within a window, each lane sorts its records by
length and gives the shortest to one step, the next ones to another, and so on; which step gets
which follows from (seed, epoch, window) alone, so all lanes give similar lengths to a step. A
window has the same records as without buckets, and so has the epoch.
"""

from dataclasses import dataclass
from typing import Final

import tensorflow as tf

from tenfold.data.format.manifest import Feature
from tenfold.data.reading.feeding.input_spec import is_ragged
from tenfold.data.reading.records.parse_features import parse_features
from tenfold.data.reading.records.shard_elements import plain_graph

# Steps of a window. Part of the order: changing it changes which records a batch holds.
WINDOW_STEPS: Final = 32

# Windows of an epoch, at most, so that every window of a run has a seed of its own.
_MAX_WINDOWS: Final = 2**40


@dataclass(frozen=True)
class Bucket:
    """How records are sorted.

    Args:
      feature: the feature whose length counts: the entries of a list, or the bytes of a text.
      seed: the run's seed.
      trained_steps: the steps of an epoch; records of further ones, its leftovers, stay in place.
    """

    feature: Feature
    seed: int
    trained_steps: int


def record_lengths(records: tf.Tensor, feature: Feature) -> tf.Tensor:
    """Return the length of a feature in each record, int64 [n].

    Args:
      records: serialized records, string [n].
      feature: a list, a sequence or a text; one that is missing has length 0.
    """
    defaults = {} if is_ragged(feature) or feature.sequence else {feature.name: ""}
    value = parse_features(records, [feature], defaults)[feature.name]
    if isinstance(value, tf.RaggedTensor):
        return value.row_lengths()
    return tf.strings.length(value, tf.int32)


def in_buckets(
    records: tf.data.Dataset,
    bucket: Bucket,
    *,
    step_records: int,
    first_step: tf.Tensor,
    epoch: tf.Tensor,
) -> tf.data.Dataset:
    """Return the raw records of a lane's epoch with those of each window dealt to it by length.

    Args:
      records: `step_records` string scalars for each step; "" stands for no record, and stays.
      bucket: how they are sorted.
      step_records: records and fillers of the lane in a step.
      first_step: int64 scalar, the step of the first record, at the beginning of a window.
      epoch: int64 scalar.
    """
    first_window = first_step // WINDOW_STEPS

    @plain_graph
    def arrange(number: tf.Tensor, found: tf.Tensor) -> tf.Tensor:
        window = first_window + number
        step_in_window = tf.range(tf.size(found)) // step_records
        step = window * WINDOW_STEPS + tf.cast(step_in_window, tf.int64)
        places = tf.where((found != "") & (step < bucket.trained_steps))[:, 0]
        chosen = tf.gather(found, places)
        by_length = tf.argsort(record_lengths(chosen, bucket.feature), stable=True)
        rank = _step_ranks(bucket.seed, epoch * _MAX_WINDOWS + window)
        by_rank = tf.argsort(tf.gather(rank, tf.gather(step_in_window, places)), stable=True)
        return tf.tensor_scatter_nd_update(
            found, tf.gather(places, by_rank)[:, None], tf.gather(chosen, by_length)
        )

    windows = records.batch(WINDOW_STEPS * step_records)
    return windows.enumerate().map(arrange).unbatch()


def _step_ranks(seed: int, window: tf.Tensor) -> tf.Tensor:
    """Return the rank by length of each step of a window, int32 [WINDOW_STEPS]."""
    draws = tf.random.stateless_uniform(
        [WINDOW_STEPS],
        tf.stack([tf.constant(seed, tf.int64), window]),
        minval=None,
        maxval=None,
        dtype=tf.int64,
        alg="philox",
    )
    return tf.argsort(draws, stable=True)
