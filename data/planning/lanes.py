"""Lanes: the division of shards that makes global batches independent of the worker count.

Shard i of a split belongs to lane i % num_lanes. Each of W workers reads num_lanes / W
neighbouring lanes, rounded up or down. Every global batch takes the same records from every lane
on any number of workers.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Final

from tenfold.data.errors import UserError
from tenfold.data.planning.batch_shares import BatchShares
from tenfold.data.units import plural

if TYPE_CHECKING:
    from tenfold.data.format.manifest import Manifest, ShardInfo, Split

# What becomes of the records that are too few for a whole batch at the end of an epoch.
DROP: Final = "drop"
PAD: Final = "pad"
REPEAT: Final = "repeat"
REMAINDERS: Final = (DROP, PAD, REPEAT)

# Of more lanes, the parts of workers are not counted step by step.
_MAX_COUNTED_LANES: Final = 400


@dataclass(frozen=True)
class Lane:
    """One lane of a split: its number among all lanes and its shards, in manifest order."""

    index: int
    shards: "tuple[ShardInfo, ...]"

    @property
    def num_records(self) -> int:
        """Records over the lane's shards."""
        return sum(shard.records for shard in self.shards)


@dataclass(frozen=True)
class WorkerShards:
    """The shards of a split that one worker reads, and the steps of an epoch.

    Attributes:
      worker: the index of the worker, from 0.
      num_workers: the number of workers.
      lanes: the worker's lanes.
      shares: how many records of each global batch come from each lane.
      full_steps: the steps in which every lane of the split gives its whole share.
      short_steps: the records of each further global batch that would reach the end of the split;
        the same on all workers, as `full_steps` is.
      remainder: what the short steps are: DROP: no steps, but `tail_steps`; PAD: steps with
        fewer records; REPEAT: full steps, in which lanes begin again from their first record.
    """

    worker: int
    num_workers: int
    lanes: tuple[Lane, ...]
    shares: BatchShares
    full_steps: int
    short_steps: tuple[int, ...] = ()
    remainder: str = DROP
    _sizes: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_sizes", tuple(lane.num_records for lane in self.lanes))

    @property
    def steps_per_epoch(self) -> int:
        """The steps of an epoch, equal on all workers."""
        return self.full_steps + (0 if self.remainder == DROP else len(self.short_steps))

    @property
    def tail_steps(self) -> int:
        """Further steps that would reach every record that the epoch leaves over."""
        return len(self.short_steps) if self.remainder == DROP else 0

    @property
    def num_records(self) -> int:
        """Records over the worker's lanes."""
        return sum(self._sizes)

    @property
    def shards(self) -> "tuple[ShardInfo, ...]":
        """The worker's shards, lane by lane."""
        return tuple(shard for lane in self.lanes for shard in lane.shards)

    @property
    def max_records(self) -> int:
        """The most records that the worker may get of a global batch."""
        return self.shares.max_lane_records * len(self.lanes)

    def lane_records(self, step: int) -> tuple[int, ...]:
        """Return the worker's records of a step of an epoch, or of its tail, by lane."""
        shares, repeats = self.shares, self.remainder == REPEAT
        counts = []
        for lane, size in zip(self.lanes, self._sizes, strict=True):
            begin, end = shares.taken(lane.index, step), shares.taken(lane.index, step + 1)
            counts.append(end - begin if repeats else min(end, size) - min(begin, size))
        return tuple(counts)

    def records(self, step: int) -> int:
        """Return the worker's records of a step of an epoch, or of its tail."""
        return sum(self.lane_records(step))

    def global_records(self, step: int) -> int:
        """Return all workers' records of a step of an epoch."""
        short = step >= self.full_steps and self.remainder == PAD
        return self.short_steps[step - self.full_steps] if short else self.shares.batch_size

    @property
    def epoch_records(self) -> int:
        """All workers' records of an epoch, repeated ones included."""
        return self.records_between(0, self.steps_per_epoch)

    def records_between(self, begin: int, end: int) -> int:
        """Return all workers' records of the steps from `begin` to `end` of an epoch."""
        full = max(0, min(end, self.full_steps) - begin)
        others = range(max(begin, self.full_steps), end)
        return full * self.shares.batch_size + sum(map(self.global_records, others))

    @property
    def repeated_records(self) -> int:
        """All workers' records that an epoch reads again."""
        if self.remainder != REPEAT:
            return 0
        return len(self.short_steps) * self.shares.batch_size - sum(self.short_steps)

    @property
    def has_smaller_batches(self) -> bool:
        """Whether the last batches of an epoch have fewer records."""
        return self.remainder == PAD and bool(self.short_steps)

    @property
    def _has_empty_batches(self) -> bool:
        """Whether a batch with fewer records than lanes finds only lanes at their end."""
        return self.remainder == PAD and 0 in self.short_steps

    def is_even(self, replicas: int) -> bool:
        """Whether the parts of all workers' replicas are equal at every step of an epoch.

        Args:
          replicas: the replicas of each worker.
        """
        parts = self.num_workers * replicas
        if parts == 1:
            return not self._has_empty_batches
        return (
            self.shares.splits_evenly(self.num_workers)
            and self.shares.batch_size % parts == 0
            and not self.has_smaller_batches
        )

    def may_be_empty(self, replicas: int) -> bool:
        """Whether a replica of some worker may get no record of a step.

        Args:
          replicas: the replicas of each worker.
        """
        if self.num_workers * replicas == 1:
            return self._has_empty_batches
        return (
            self.has_smaller_batches or _fewest_records(self.shares, self.num_workers) < replicas
        )


@cache
def _fewest_records(shares: BatchShares, num_workers: int) -> int:
    """Return the fewest records that a worker gets of a full batch; less where that is costly."""
    num_lanes = shares.num_lanes
    bound = shares.batch_size // num_lanes * (num_lanes // num_workers)
    if shares.are_equal or num_lanes > _MAX_COUNTED_LANES:
        return bound
    fewest = shares.batch_size
    for step in range(num_lanes // math.gcd(shares.batch_size, num_lanes)):  # then they repeat
        given = [
            shares.taken(lane, step + 1) - shares.taken(lane, step) for lane in range(num_lanes)
        ]
        sums = list(itertools.accumulate(given, initial=0))
        for worker in range(num_workers):
            lanes = lanes_of_worker(worker, num_workers=num_workers, num_lanes=num_lanes)
            fewest = min(fewest, sums[lanes.stop] - sums[lanes.start])
    return fewest


def split_evenly(records: int, parts: int) -> tuple[int, ...]:
    """Return the records of each part, which differ by at most one."""
    bounds = [index * records // parts for index in range(parts + 1)]
    return tuple(end - begin for begin, end in itertools.pairwise(bounds))


def deal_lanes(split: "Split", num_lanes: int) -> tuple[Lane, ...]:
    """Return all lanes of a split."""
    return tuple(Lane(lane, split.shards[lane::num_lanes]) for lane in range(num_lanes))


def lanes_of_worker(worker: int, *, num_workers: int, num_lanes: int) -> range:
    """Return the indices of a worker's lanes."""
    return range(worker * num_lanes // num_workers, (worker + 1) * num_lanes // num_workers)


def assign_lanes(
    manifest: "Manifest",
    split: str,
    *,
    num_workers: int,
    global_batch_size: int,
    remainder: str = DROP,
) -> tuple[WorkerShards, ...]:
    """Return the shards of every worker, by worker index.

    Args:
      manifest: the manifest of the data set.
      split: the name of the split.
      num_workers: the number of workers, at most the number of lanes.
      global_batch_size: records per step over all workers.
      remainder: what becomes of the records that are too few for a whole batch at the end of an
        epoch; see `WorkerShards`.

    Raises:
      UserError: there are more workers than lanes, or the split, or one of its lanes, has too few
        records for one batch.
    """
    num_lanes = manifest.num_lanes
    check_workers(num_lanes, num_workers, global_batch_size)
    check_remainder(remainder)
    shares = BatchShares(global_batch_size, num_lanes)
    lanes = deal_lanes(manifest.split(split), num_lanes)
    sizes = [lane.num_records for lane in lanes]
    full_steps = min(shares.full_steps(lane, size) for lane, size in enumerate(sizes))
    all_steps = max(shares.steps_to_end(lane, size) for lane, size in enumerate(sizes))
    if (full_steps == 0 and remainder == DROP) or (remainder == REPEAT and not all(sizes)):
        few = f"split '{split}' has {plural(sum(sizes), 'record')}"
        if sum(sizes) >= global_batch_size:
            few += f", but a lane with {plural(min(sizes), 'record')} only"
        raise UserError(
            f"{few}, too few for one global batch of {global_batch_size:,}: lower "
            "--global_batch_size, or give --remainder=pad"
        )
    short_steps = tuple(
        _records_left(shares, sizes, step) for step in range(full_steps, all_steps)
    )
    return tuple(
        WorkerShards(
            worker=worker,
            num_workers=num_workers,
            lanes=tuple(
                lanes[index]
                for index in lanes_of_worker(worker, num_workers=num_workers, num_lanes=num_lanes)
            ),
            shares=shares,
            full_steps=full_steps,
            short_steps=short_steps,
            remainder=remainder,
        )
        for worker in range(num_workers)
    )


def _records_left(shares: BatchShares, sizes: Sequence[int], step: int) -> int:
    """Return the records that lanes of `sizes` records have left for a global batch."""
    return sum(
        min(shares.taken(lane, step + 1), size) - min(shares.taken(lane, step), size)
        for lane, size in enumerate(sizes)
    )


def check_workers(num_lanes: int, num_workers: int, global_batch_size: int) -> None:
    """Check that each worker has a lane, and each global batch a record.

    Raises:
      UserError: there are more workers than lanes, or a number is below 1.
    """
    if num_workers < 1:
        raise UserError(f"num_workers is {num_workers}: it must be at least 1")
    if num_workers > num_lanes:
        raise UserError(
            f"{num_workers:,} workers cannot share {plural(num_lanes, 'lane')}: take at most "
            f"{plural(num_lanes, 'worker')}, or write the shards with --num_workers={num_workers}"
        )
    if global_batch_size < 1:
        raise UserError(f"global_batch_size is {global_batch_size}: it must be at least 1")


def check_remainder(remainder: str, balance: str = "") -> None:
    """Check that `remainder` is one of REMAINDERS, and DROP where classes are balanced.

    Raises:
      UserError: it is not.
    """
    if remainder not in REMAINDERS:
        raise UserError(f"remainder is '{remainder}', none of {', '.join(REMAINDERS)}")
    if balance and remainder != DROP:
        raise UserError(
            f"balance={balance} reads some records several times and leaves no remainder: leave "
            f"out remainder={remainder}"
        )


def imbalance(num_lanes: int, num_workers: int) -> float:
    """Return how much longer a step takes than with equal parts, as a share.

    A step waits for the workers with the most lanes: 0.5 means 1.5 times as long.
    """
    return -(-num_lanes // num_workers) * num_workers / num_lanes - 1
