"""Receipts: the proof of which records were read, from counts and fingerprint sums alone.

Counts of records and sums of fingerprints add up over steps, replicas and workers; an epoch's
totals must equal the manifest's.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from tenfold.data.format.manifest import Split
from tenfold.data.reading.batches import count_records
from tenfold.data.reading.feeding.nested import zeros_like_spec
from tenfold.data.reading.ordering.step_parts import StepParts
from tenfold.data.reading.read_config import ReadConfig
from tenfold.data.reading.read_options import Position
from tenfold.data.reading.records.record_reader import EvaluationBatch, TrainingBatch
from tenfold.data.reading.records.shard_elements import plain_graph
from tenfold.data.storage.read_manifest import read_manifest
from tenfold.data.units import plural


@dataclass(frozen=True)
class Receipt:
    """The records that all workers together read of a split in one pass over it.

    Args:
      records: records that were read.
      expected: records of the split by the manifest.
      left_out: leftover records, too few for another batch.
      fingerprint: sum modulo 2**64 of the fingerprints of `records` and `left_out`.
      expected_fingerprint: that of all records by the manifest.
      broken: names of records that were damaged before the run began; they are not expected.
      repeated: records that were read again to fill the last batches.
      data: the name of the data set in a mixture; "" outside of one.
      passes: how often an epoch reads the records of a further data set of a mixture; None for
        once. Then the other fields are the sums of the passes that ended in the epoch.
      balanced: the name of each class, and how often a record of it is read on average; () where
        records are read once. Then `expected` is the records of an epoch, and no fingerprint is
        expected.
      of_epoch: where the run ended within the epoch, the records of the whole epoch; `expected` is
        then the records of the steps before, and no fingerprint is expected. 0 otherwise.
    """

    records: int
    expected: int
    left_out: int
    fingerprint: int
    expected_fingerprint: int
    broken: tuple[str, ...] = ()
    repeated: int = 0
    balanced: tuple[tuple[str, float], ...] = ()
    data: str = ""
    passes: float | None = None
    of_epoch: int = 0

    @property
    def exact(self) -> bool:
        """Whether each record was read exactly once, or is a leftover record.

        With balanced classes, or within an epoch, whether as many records were read as the steps
        have.
        """
        complete = self.records + self.left_out == self.expected
        if self.balanced or self.of_epoch:
            return complete
        return complete and self.fingerprint == self.expected_fingerprint

    def sentence(self) -> str:
        """Return the receipt in words."""
        text = f"{self.records:,} of {self.of_epoch or self.expected:,} records"
        if self.data:
            text = f"'{self.data}': {text}"
        if self.passes is not None:
            text = f"'{self.data}': {self.passes:.2f} passes in this epoch"
            if not self.expected:
                return f"{text}, none of which has ended"
            text += f"; {self.records:,} of {self.expected:,} records in those that ended"
        if not self.exact:
            return (
                f"{text}: some records were not read exactly once: run 'tenfold verify'; if the "
                "shards are sound, report a bug"
            )
        if self.of_epoch:
            return f"{text} of the epoch, as many as its steps have so far; the run ends within it"
        text += ", each read once" if not self.balanced else f", balanced: {self._multiples()}"
        if self.left_out:
            text += (
                f", {self.left_out:,} left over (too few for a batch; different ones each epoch)"
            )
        if self.repeated:
            text += f", and {self.repeated:,} again to fill the last batches"
        if self.broken:
            text += f"; {plural(len(self.broken), 'damaged record')} skipped: {self.broken[0]}"
            text += ", …" if len(self.broken) > 1 else ""
        return text

    def _multiples(self) -> str:
        """Return how often records of the rarest and of the most frequent class are read."""
        by_copies = sorted((entry for entry in self.balanced if entry[1]), key=lambda e: -e[1])
        shown = [f"'{name}' about {copies:.3g} times" for name, copies in by_copies]
        return "records of " + ", ".join([*shown[:2], "…", shown[-1]] if shown[3:] else shown)

    def to_json(self) -> dict[str, Any]:
        """Return the receipt as metrics.jsonl holds it."""
        return {
            "records": self.records,
            "expected": self.expected,
            "left_out": self.left_out,
            "fingerprint": f"{self.fingerprint:016x}",
            "expected_fingerprint": f"{self.expected_fingerprint:016x}",
            "exact": self.exact,
            "broken": list(self.broken),
            "repeated": self.repeated,
            "balanced": dict(self.balanced),
            "data": self.data,
            "passes": self.passes,
            "of_epoch": self.of_epoch,
        }


def make_receipt(
    split: Split,
    *,
    records: int,
    fingerprint: int,
    left_out: int = 0,
    broken: Sequence[str] = (),
    repeated: int = 0,
    expected: int | None = None,
    balanced: Sequence[tuple[str, float]] = (),
    of_epoch: int = 0,
) -> Receipt:
    """Return the receipt of a pass over `split`.

    Args:
      split: the split by the manifest.
      records: records that were read.
      fingerprint: sum of the fingerprints of `records` and `left_out`, of any sign.
      left_out: leftover records.
      broken: names of records that were damaged before the run began.
      repeated: records that were read again.
      expected: records of the pass; None for those of the split.
      balanced: how often records of each class are read, as in `Receipt`.
      of_epoch: the records of the whole epoch where the run ended within it.
    """
    return Receipt(
        records=records,
        expected=split.num_records if expected is None else expected,
        left_out=left_out,
        fingerprint=fingerprint % 2**64,
        expected_fingerprint=split.fingerprint,
        broken=tuple(broken),
        repeated=repeated,
        balanced=tuple(balanced),
        of_epoch=of_epoch,
    )


def epoch_receipt(shards: str, counts: Iterable[int], *, split: str = "train") -> Receipt:
    """Return the receipt of an epoch that a script of the user's own has read.

    With ``remainder="repeat"``, records that are read again are not counted.

    Args:
      shards: folder or URL of the shards.
      counts: the sum, over the epoch's elements on all replicas of all workers, of the `counts`
        that ``training_dataset(…, receipt=True)`` and ``evaluation_dataset`` add.
      split: name of the split.

    Raises:
      UserError: the shards or the split do not exist.
    """
    records, left_out, fingerprint = map(int, counts)
    return make_receipt(
        read_manifest(shards).split(split),
        records=records,
        fingerprint=fingerprint,
        left_out=left_out,
    )


def add_evaluation_counts(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Return `evaluation_batches` as (batch, counts), counts being int64 [3]."""

    @plain_graph
    def add(batch: EvaluationBatch) -> tuple[EvaluationBatch, tf.Tensor]:
        return batch, count_records(batch.fingerprints, tf.constant(False))[0]

    return batches.map(add)


def fold_tails(
    batches: tf.data.Dataset, config: ReadConfig, *, start: Position, epochs: int | None
) -> tf.data.Dataset:
    """Return `training_batches` without their tails, whose counts the last batch of an epoch has.

    Args:
      batches: batches with tails.
      config, start, epochs: those that `batches` were made with.
    """
    shards, replicas = config.shards, config.place.replicas
    parts = StepParts(shards, replicas=replicas, tail=True)
    used, per_epoch = parts.used, parts.per_epoch

    spec = batches.element_spec

    # The state of a scan cannot hold ragged tensors, but their parts.
    def parts_of(batch: TrainingBatch) -> tuple[tf.Tensor, ...]:
        return tuple(tf.nest.flatten(batch, expand_composites=True))

    def batch_of(*parts: tf.Tensor) -> TrainingBatch:
        batch: TrainingBatch = tf.nest.pack_sequence_as(spec, parts, expand_composites=True)
        return batch

    @plain_graph
    def fold(last: tuple[tf.Tensor, ...], item: tuple[tf.Tensor, TrainingBatch]) -> Any:
        """Keep the last batch of the steps while the tail's counts are added to it."""
        number, batch = item[0] % per_epoch, item[1]
        kept = batch_of(*last)
        last = tf.cond(
            number < used,
            lambda: parts_of(batch),
            lambda: parts_of(kept._replace(counts=kept.counts + batch.counts)),
        )
        return last, (last, (number < used - 1) | (number == per_epoch - 1))

    numbered = batches.enumerate(start.epoch * per_epoch + start.step * replicas)
    folded = numbered.scan(parts_of(zeros_like_spec(spec)), fold)
    complete = folded.filter(lambda _, is_complete: is_complete)
    complete = complete.map(plain_graph(lambda parts, _: batch_of(*parts)))
    length = tf.data.INFINITE_CARDINALITY
    if epochs is not None:
        length = max(0, (epochs - start.epoch) * used - start.step * replicas)
    return complete.apply(tf.data.experimental.assert_cardinality(length))
