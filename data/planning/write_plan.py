"""The plan of a write: the place of every record, as numbers. Pure."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from tenfold.data.format.manifest import shard_name
from tenfold.data.planning.lane_count import SplitSize, choose_num_lanes
from tenfold.data.planning.layout import LayoutPolicy, ShardLayout
from tenfold.data.planning.permutation import Permutation
from tenfold.data.planning.plan_layout import plan_layout
from tenfold.data.planning.splits.deal_splits import DealtSplits

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class SizeEstimate:
    """The sizes of a split's records.

    Attributes:
      record_bytes: the mean bytes of a stored record.
      max_record_bytes: the bytes of the largest; 0 if it is not known.
      copies: the copies of each example that are transformed.
      records_per_copy: the mean number of records that the transforms make of a copy: below 1 if
        they leave some out, above 1 if they make several of one.
    """

    record_bytes: float
    max_record_bytes: int = 0
    copies: int = 1
    records_per_copy: float = 1.0


@dataclass(frozen=True)
class SplitPlan:
    """One split: `examples` of the shuffled `pool` from position `first` on, `copies` of each.

    Its shards get equal numbers of copies, ±1. They hold as many records, unless transforms leave
    some out or make several of one: only the written shards tell how many records they hold.

    Attributes:
      name: the name of the split.
      first: the position of its first example in the shuffled pool.
      examples: the number of its examples.
      copies: the copies of each example that are transformed.
      layout: the shards; its records are copies.
      pool: the example numbers among which the split's are.
      pool_key: identifies the pool; "" for all examples of the source.
      records_per_copy: as in `SizeEstimate`.
    """

    name: str
    first: int
    examples: int
    copies: int
    layout: ShardLayout
    pool: Sequence[int]
    pool_key: str = ""
    records_per_copy: float = 1.0

    @property
    def expected_records(self) -> int:
        """The number of records, estimated if transforms choose them."""
        return round(self.examples * self.copies * self.records_per_copy)


@dataclass(frozen=True)
class ShardTask:
    """One shard to write: `records` copies of its split's order from number `first` on.

    `split` is the index of the split in the plan.
    """

    split: int
    name: str
    first: int
    records: int


@dataclass(frozen=True)
class WritePlan:
    """All splits of a write, the seed of the shuffle, and remarks on the splits for the user."""

    splits: tuple[SplitPlan, ...]
    shuffle_seed: int
    num_lanes: int
    worker_counts: tuple[int, ...]
    notes: tuple[str, ...] = ()

    @cached_property
    def tasks(self) -> tuple[ShardTask, ...]:
        """All shards, split by split."""
        return tuple(
            task for index in range(len(self.splits)) for task in self._split_tasks(index)
        )

    @property
    def num_records(self) -> int:
        """Records over all splits, copies included, estimated if transforms choose them."""
        return sum(split.expected_records for split in self.splits)

    @property
    def num_bytes(self) -> int:
        """Expected bytes over all splits."""
        return sum(split.layout.total_bytes for split in self.splits)

    def _split_tasks(self, index: int) -> Iterator[ShardTask]:
        """Yield a split's shards; the first ones take one record more if they do not divide."""
        split = self.splits[index]
        shards = split.layout.num_shards
        base, extra = divmod(split.examples * split.copies, shards)
        for shard in range(shards):
            first = shard * base + min(shard, extra)
            name = shard_name(split.name, shard, shards)
            yield ShardTask(index, name, first, base + (shard < extra))

    @cached_property
    def _orders(self) -> dict[int, Permutation]:
        """The shuffle of a pool, by its size."""
        sizes = {len(split.pool) for split in self.splits}
        return {size: Permutation(size, self.shuffle_seed) for size in sizes}

    def with_pools(self, change: Callable[[int, Sequence[int]], Sequence[int]]) -> "WritePlan":
        """Return the plan with the pool of each split replaced by `change(index, pool)`."""
        splits = tuple(
            replace(split, pool=change(index, split.pool))
            for index, split in enumerate(self.splits)
        )
        return replace(self, splits=splits)

    def expected_records(self, task: ShardTask) -> int:
        """Return the number of records of a shard, estimated if transforms choose them."""
        return round(task.records * self.splits[task.split].records_per_copy)

    def sources_of(self, task: ShardTask) -> Iterator[tuple[int, int]]:
        """Yield (source example, copy) of every record of a shard, in order.

        One shuffle orders the examples of a pool, so that all copies of an example stay in one
        split; a second shuffle mixes the copies within the split.
        """
        split = self.splits[task.split]
        pool, order = split.pool, self._orders[len(split.pool)]
        positions: Sequence[int] | Iterator[int] = range(task.first, task.first + task.records)
        if split.copies == 1:
            yield from ((pool[order[split.first + position]], 0) for position in positions)
            return
        mixed = Permutation(split.examples * split.copies, self.shuffle_seed + 1)
        for position in positions:
            example, copy = divmod(mixed[position], split.copies)
            yield pool[order[split.first + example]], copy

    def examples_of(self, task: ShardTask) -> "np.ndarray":
        """Return the source examples of a shard without copies, int64 [records], in order."""
        import numpy as np

        split = self.splits[task.split]
        assert split.copies == 1, split
        first = split.first + task.first
        positions = self._orders[len(split.pool)].take(np.arange(first, first + task.records))
        if isinstance(split.pool, range):
            return positions + split.pool.start
        return np.asarray(split.pool)[positions]


def plan_write(
    dealt: DealtSplits,
    policy: LayoutPolicy,
    *,
    shuffle_seed: int = 0,
    estimates: Sequence[SizeEstimate],
) -> WritePlan:
    """Return the plan of a write.

    Args:
      dealt: the examples of each split.
      policy: the bounds of each split's layout.
      shuffle_seed: the seed of the order of the records.
      estimates: the sizes of each split's records.

    Raises:
      UserError: a split has too few examples for its lanes, or a size is not positive.
    """
    sizes = [
        _size(split.examples * estimate.copies, estimate)
        for split, estimate in zip(dealt.splits, estimates, strict=True)
    ]
    num_lanes = choose_num_lanes(policy, sizes)
    plans: list[SplitPlan] = []
    for split, estimate, size in zip(dealt.splits, estimates, sizes, strict=True):
        layout = plan_layout(
            size.total_bytes,
            size.num_examples,
            policy,
            num_lanes=num_lanes,
            max_record_bytes=estimate.max_record_bytes,
            split=split.name if len(dealt.splits) > 1 else "",
        )
        plans.append(
            SplitPlan(
                name=split.name,
                first=split.first,
                examples=split.examples,
                copies=estimate.copies,
                layout=layout,
                pool=split.pool,
                pool_key=split.pool_key,
                records_per_copy=estimate.records_per_copy,
            )
        )
    return WritePlan(tuple(plans), shuffle_seed, num_lanes, policy.all_counts, dealt.notes)


def _size(copies: int, estimate: SizeEstimate) -> SplitSize:
    """Return the expected size of a split of so many copies of examples."""
    expected = estimate.record_bytes * estimate.records_per_copy * copies
    # A copy takes at least a byte of the plan, however few records become of it.
    least = copies if estimate.records_per_copy < 1 else 1
    return SplitSize(max(round(expected), least), copies)
