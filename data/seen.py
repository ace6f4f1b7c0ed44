"""What a worker has seen of an epoch, in numbers that add up over steps, replicas and workers."""

from typing import Final

import tensorflow as tf

from tenfold.data.batches import FINGERPRINT, Batch, ReadConfig
from tenfold.data.order import Position, plain_graph
from tenfold.data.parse import zero

# int64 [3]: records, records left out, and the sum of the fingerprints of both modulo 2**64.
SEEN: Final = "seen"


def seen_in_evaluation(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Returns `evaluation_batches` with SEEN."""
    return batches.map(plain_graph(lambda batch: _counted(batch, tf.constant(False))))


def seen_in_training(
    batches: tf.data.Dataset, config: ReadConfig, *, start: Position, epochs: int | None
) -> tf.data.Dataset:
    """Returns `training_batches` without their tails, with SEEN.

    `batches` has tails; the last batch of an epoch tells of its tail too. `start` and `epochs`
    are what `batches` were made with.
    """
    shards = config.shards(drop_remainder=True)
    used = shards.steps_per_epoch * config.replicas
    per_epoch = used + shards.tail_steps * config.replicas

    @plain_graph
    def fold(last: Batch, item: tuple[tf.Tensor, Batch]) -> tuple[Batch, tuple[Batch, tf.Tensor]]:
        at = item[0] % per_epoch
        batch = _counted(item[1], at >= used)
        last = tf.cond(at < used, lambda: batch, lambda: {**last, SEEN: last[SEEN] + batch[SEEN]})
        return last, (last, (at < used - 1) | (at == per_epoch - 1))

    none = {name: tf.fill(s.shape, zero(s.dtype)) for name, s in batches.element_spec.items()}
    numbered = batches.enumerate(start.epoch * per_epoch + start.step * config.replicas)
    folded = numbered.scan({**none, SEEN: tf.zeros([3], tf.int64)}, fold)
    whole = folded.filter(lambda _, complete: complete).map(lambda batch, _: batch)
    length = tf.data.INFINITE_CARDINALITY
    if epochs is not None:
        length = max(0, (epochs - start.epoch) * used - start.step * config.replicas)
    return whole.apply(tf.data.experimental.assert_cardinality(length))


def _counted(batch: Batch, left_out: tf.Tensor) -> Batch:
    prints = batch[FINGERPRINT]
    count = tf.math.count_nonzero(prints)
    none = tf.zeros_like(count)
    counts = tf.where(left_out, [none, count], [count, none])
    return {**batch, SEEN: tf.concat([counts, [tf.reduce_sum(prints)]], axis=0)}
