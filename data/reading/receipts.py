"""Receipts: the proof of which records were read, from counts and fingerprint sums alone.

What a worker has seen of an epoch, in numbers that add up over steps, replicas and workers.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import tensorflow as tf

from tenfold.data.format.manifest import Split
from tenfold.data.reading.batches import FINGERPRINT, Batch
from tenfold.data.reading.graph_records import zero
from tenfold.data.reading.order import Position, plain_graph
from tenfold.data.reading.read_config import ReadConfig
from tenfold.data.storage.read_manifest import read_manifest
from tenfold.data.units import plural


@dataclass(frozen=True)
class Receipt:
    """What all workers together read of a split in one pass over it.

    `expected` is the manifest's number of records, `left_out` how many followed the last whole
    batch. `fingerprint` is the sum modulo 2**64 over the records read and those left out;
    `broken` names records that were lost before the run began and are not expected.
    """

    records: int
    expected: int
    left_out: int
    fingerprint: int
    expected_fingerprint: int
    broken: tuple[str, ...] = ()

    @property
    def exact(self) -> bool:
        """Whether each record was read exactly once, or left out and not read."""
        whole = self.records + self.left_out == self.expected
        return whole and self.fingerprint == self.expected_fingerprint

    def sentence(self) -> str:
        """Returns the receipt as one reads it."""
        of = f"{self.records:,} of {self.expected:,} records"
        if not self.exact:
            return f"{of}: NOT each once, the shards or the reading are at fault"
        text = f"{of}, each read once"
        if self.left_out:
            text += f", {self.left_out:,} left out (less than a batch a lane, others each epoch)"
        if self.broken:
            text += f"; {plural(len(self.broken), 'broken one')} skipped: {self.broken[0]}"
            text += ", …" if len(self.broken) > 1 else ""
        return text

    def to_json(self) -> dict[str, Any]:
        """Returns the receipt as metrics.jsonl holds it."""
        return {
            "records": self.records,
            "expected": self.expected,
            "left_out": self.left_out,
            "fingerprint": f"{self.fingerprint:016x}",
            "expected_fingerprint": f"{self.expected_fingerprint:016x}",
            "exact": self.exact,
            "broken": list(self.broken),
        }


def make_receipt(
    split: Split,
    *,
    records: int,
    fingerprint: int,
    left_out: int = 0,
    broken: Sequence[str] = (),
) -> Receipt:
    """Returns the receipt for `records` read of `split`, `left_out` knowingly not.

    `fingerprint` is the sum over both; `broken` names what was lost of the split beforehand.
    """
    return Receipt(
        records=records,
        expected=split.num_records,
        left_out=left_out,
        fingerprint=fingerprint % 2**64,
        expected_fingerprint=split.fingerprint,
        broken=tuple(broken),
    )


def epoch_receipt(shards: str, seen: Iterable[int], *, split: str = "train") -> Receipt:
    """Returns the receipt of an epoch that a script of the user's own has read.

    `seen` is the sum, over the epoch's elements on all replicas of all workers, of what
    ``worker_dataset(..., receipt=True)`` gives last: records, records left out, and
    fingerprints modulo 2**64.

    Raises:
      UserError: the shards or the split do not exist.
    """
    records, left_out, fingerprint = map(int, seen)
    return make_receipt(
        read_manifest(shards).split(split),
        records=records,
        fingerprint=fingerprint,
        left_out=left_out,
    )


# int64 [3]: records, records left out, and the sum of the fingerprints of both modulo 2**64.
RECEIPT_COUNTS: Final = "seen"


def add_evaluation_counts(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Returns `evaluation_batches` with RECEIPT_COUNTS."""
    return batches.map(plain_graph(lambda batch: _counted(batch, tf.constant(False))))


def add_training_counts(
    batches: tf.data.Dataset, config: ReadConfig, *, start: Position, epochs: int | None
) -> tf.data.Dataset:
    """Returns `training_batches` without their tails, with RECEIPT_COUNTS.

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
        last = tf.cond(
            at < used,
            lambda: batch,
            lambda: {**last, RECEIPT_COUNTS: last[RECEIPT_COUNTS] + batch[RECEIPT_COUNTS]},
        )
        return last, (last, (at < used - 1) | (at == per_epoch - 1))

    none = {name: tf.fill(s.shape, zero(s.dtype)) for name, s in batches.element_spec.items()}
    numbered = batches.enumerate(start.epoch * per_epoch + start.step * config.replicas)
    folded = numbered.scan({**none, RECEIPT_COUNTS: tf.zeros([3], tf.int64)}, fold)
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
    return {**batch, RECEIPT_COUNTS: tf.concat([counts, [tf.reduce_sum(prints)]], axis=0)}
