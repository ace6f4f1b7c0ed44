"""The plan of a write: the place of every record, as numbers. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from tenfold.data.format.manifest import shard_name
from tenfold.data.planning.layout import LayoutPolicy, ShardLayout
from tenfold.data.planning.permutation import Permutation
from tenfold.data.planning.plan_layout import SplitFraction, plan_layout, split_counts

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class SizeEstimate:
    """The size of a split's records: `copies` of each example, of `record_bytes` on average."""

    record_bytes: float
    max_record_bytes: int = 0
    copies: int = 1


@dataclass(frozen=True)
class SplitPlan:
    """One split: `examples` of the shuffled source from number `first` on, `copies` of each."""

    name: str
    first: int
    examples: int
    copies: int
    layout: ShardLayout


@dataclass(frozen=True)
class ShardTask:
    """One shard to write: `records` of its split's order from number `first` on.

    `split` is the index of the split in the plan.
    """

    split: int
    name: str
    first: int
    records: int


@dataclass(frozen=True)
class WritePlan:
    """All splits of a write, and the seed of the shuffle."""

    splits: tuple[SplitPlan, ...]
    shuffle_seed: int
    num_lanes: int
    worker_counts: tuple[int, ...]

    @cached_property
    def tasks(self) -> tuple[ShardTask, ...]:
        """All shards, split by split."""
        return tuple(
            task for index in range(len(self.splits)) for task in self._split_tasks(index)
        )

    @property
    def num_records(self) -> int:
        """Records over all splits, copies included."""
        return sum(split.examples * split.copies for split in self.splits)

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
    def _source_order(self) -> Permutation:
        return Permutation(sum(split.examples for split in self.splits), self.shuffle_seed)

    def sources_of(self, task: ShardTask) -> Iterator[tuple[int, int]]:
        """Yield (source example, copy) of every record of a shard, in order.

        One shuffle deals the examples to the splits, so that all copies of an example stay in
        one split; a second shuffle mixes the copies within the split.
        """
        split = self.splits[task.split]
        order = self._source_order
        positions: Sequence[int] | Iterator[int] = range(task.first, task.first + task.records)
        if split.copies == 1:
            yield from ((order[split.first + position], 0) for position in positions)
            return
        mixed = Permutation(split.examples * split.copies, self.shuffle_seed + 1)
        for position in positions:
            example, copy = divmod(mixed[position], split.copies)
            yield order[split.first + example], copy

    def examples_of(self, task: ShardTask) -> "np.ndarray":
        """Return the source examples of a shard without copies, int64 [records], in order."""
        import numpy as np

        split = self.splits[task.split]
        assert split.copies == 1, split
        first = split.first + task.first
        return self._source_order.take(np.arange(first, first + task.records))


def plan_write(
    num_examples: int,
    policy: LayoutPolicy,
    splits: Sequence[SplitFraction],
    *,
    shuffle_seed: int = 0,
    estimates: Sequence[SizeEstimate],
) -> WritePlan:
    """Return the plan of a write.

    Args:
      num_examples: the number of examples of the source.
      policy: the bounds of each split's layout.
      splits: the splits and their fractions.
      shuffle_seed: the seed of the order of the records.
      estimates: the sizes of each split's records.

    Raises:
      UserError: a split has too few examples for its lanes, or a size is not positive.
    """
    counts = split_counts(num_examples, splits)
    plans: list[SplitPlan] = []
    for split, examples, estimate in zip(splits, counts, estimates, strict=True):
        records = examples * estimate.copies
        layout = plan_layout(
            max(round(estimate.record_bytes * records), 1),
            records,
            policy,
            max_record_bytes=estimate.max_record_bytes,
            split=split.name if len(counts) > 1 else "",
        )
        first = sum(plan.examples for plan in plans)
        plans.append(SplitPlan(split.name, first, examples, estimate.copies, layout))
    return WritePlan(tuple(plans), shuffle_seed, policy.num_lanes, policy.all_counts)
