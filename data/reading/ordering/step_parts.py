"""The part of each step that each replica of a worker gets, and what it weighs."""

from typing import Any

import numpy as np
import tensorflow as tf

from tenfold.data.planning.lanes import REPEAT, WorkerShards, split_evenly


class StepParts:
    """The parts of a worker's steps, numbered over the epochs: replica by replica, step by step.

    Args:
      shards: what the worker reads.
      replicas: the replicas of each worker.
      tail: whether `WorkerShards.tail_steps` steps follow those of each epoch.

    Attributes:
      size: the records of every part, where parts have one size; else None. Fillers take the
        place of records that a tail does not have.
      per_epoch: the parts of an epoch.
      used: the parts of an epoch before its tail.
    """

    def __init__(self, shards: WorkerShards, *, replicas: int, tail: bool) -> None:
        self._shards = shards
        self.replicas = replicas
        self.used = shards.steps_per_epoch * replicas
        self.per_epoch = self.used + (shards.tail_steps * replicas if tail else 0)
        fixed = shards.is_even(replicas) and shards.shares.are_equal
        fixed = fixed and not shards.has_smaller_batches
        total = shards.num_workers * replicas
        self.size: int | None = shards.shares.batch_size // total if fixed else None

    @property
    def has_tail(self) -> bool:
        """Whether further parts follow those that an epoch uses."""
        return self.per_epoch > self.used

    def lane_counts(self, begin: int, end: int) -> np.ndarray:
        """Return the elements of each lane in the steps `begin` to `end`, int64 [steps, lanes]."""
        shards = self._shards
        lanes = np.array([lane.index for lane in shards.lanes], np.int64)
        taken = shards.shares.taken(lanes, np.arange(begin, end + 1, dtype=np.int64)[:, None])
        if self.size is None and shards.remainder != REPEAT:
            taken = np.minimum(taken, [lane.num_records for lane in shards.lanes])
        counts: np.ndarray = np.diff(taken, axis=0)
        return counts

    def sizes(self, step_records: np.ndarray) -> np.ndarray:
        """Return the records of each part of steps with so many records, int64 [parts]."""
        bounds = np.arange(self.replicas + 1) * step_records[:, None] // self.replicas
        return np.diff(bounds, axis=1).reshape(-1)

    def is_leftover(self, number: Any) -> Any:
        """Return whether a part, or each of several, is of a tail."""
        return number % self.per_epoch >= self.used

    def partners(self, number: tf.Tensor) -> tf.Tensor:
        """Return for each record of a part the index of the next one of its lane, int64 [n].

        The first one follows the last, and a lane's lone record is its own partner. A lane gives
        the same records to a step on any number of workers, so partners are the same too, unless
        a lane's records are shared by several replicas.

        Args:
          number: int64 scalar, the number of the part, which is no leftover.
        """
        shards, step = self._shards, number % self.per_epoch // self.replicas
        lanes = tf.constant([lane.index for lane in shards.lanes], tf.int64)
        taken = shards.shares.taken(lanes, tf.stack([step, step + 1])[:, None])
        if shards.remainder != REPEAT:
            sizes = tf.constant([lane.num_records for lane in shards.lanes], tf.int64)
            taken = tf.minimum(taken, sizes)
        lane_of_record = tf.repeat(lanes, taken[1] - taken[0])
        total, replica = tf.size(lane_of_record, tf.int64), number % self.replicas
        begin, end = replica * total // self.replicas, (replica + 1) * total // self.replicas
        own = lane_of_record[begin:end]
        first = tf.searchsorted(own, own, side="left", out_type=tf.int64)
        after = tf.searchsorted(own, own, side="right", out_type=tf.int64)
        following = tf.range(end - begin) + 1
        return tf.where(following < after, following, first)

    def share(self, number: tf.Tensor, records: tf.Tensor) -> tf.Tensor:
        """Return what a part weighs, float32.

        That is its records, as a multiple of the mean over all parts of the step: the mean over
        all replicas of (share × mean loss of the part) is the mean loss of the global batch.

        Args:
          number: the number of the part.
          records: its records.
        """
        shards = self._shards
        if shards.is_even(self.replicas):
            return tf.ones(tf.shape(number), tf.float32)
        step = number % self.per_epoch // self.replicas
        total = tf.fill(tf.shape(number), tf.constant(shards.shares.batch_size, tf.int64))
        last = range(shards.full_steps, shards.steps_per_epoch)
        if last:
            table = tf.constant([shards.global_records(short) for short in last], tf.int64)
            index = tf.clip_by_value(step - shards.full_steps, 0, len(last) - 1)
            total = tf.where(step < shards.full_steps, total, tf.gather(table, index))
        parts = shards.num_workers * self.replicas
        return tf.math.divide_no_nan(
            tf.cast(records * parts, tf.float32), tf.cast(total, tf.float32)
        )

    def without_repeats(self, number: tf.Tensor, fingerprints: tf.Tensor) -> tf.Tensor:
        """Return the fingerprints of a part, 0 for the records that the epoch had before."""
        shards = self._shards
        last = range(shards.full_steps, shards.steps_per_epoch)
        if shards.remainder != REPEAT or not last:
            return fingerprints
        table = tf.ragged.constant(
            [part for step in last for part in self._first_times(step)], tf.bool, ragged_rank=1
        )
        index = number % self.per_epoch - shards.full_steps * self.replicas
        first_time = table[tf.maximum(index, 0)]
        return tf.cond(
            index < 0,
            lambda: fingerprints,
            lambda: tf.where(first_time, fingerprints, tf.zeros_like(fingerprints)),
        )

    def _first_times(self, step: int) -> list[list[bool]]:
        """Return for each part of a step whether each of its records is read the first time."""
        flags = []
        for lane in self._shards.lanes:
            begin = self._shards.shares.taken(lane.index, step)
            end = self._shards.shares.taken(lane.index, step + 1)
            flags += [index < lane.num_records for index in range(begin, end)]
        parts, begin = [], 0
        for size in split_evenly(len(flags), self.replicas):
            parts.append(flags[begin : begin + size])
            begin += size
        return parts
