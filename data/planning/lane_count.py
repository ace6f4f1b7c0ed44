"""The number of lanes of a layout: any number of workers should share them nearly evenly. Pure.

Workers share L lanes at a cost: a step waits for the worker with the most of them. Many lanes make
every cost small, but each needs a shard, and lanes of several shards mix their records better.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from tenfold.data.planning.lanes import imbalance
from tenfold.data.planning.layout import LayoutPolicy, ShardLayout

# Lanes for each worker of the largest count that the planner tends to, and looks at at most.
_LANES_PER_WORKER: Final = 4
_MAX_LANES_PER_WORKER: Final = 6
# Shards of a lane where there are enough: the records of several mix better than those of one.
_SHARDS_PER_LANE: Final = 2
# The numbers of workers that a layout is judged by beside the wished ones, at most.
_JUDGED_COUNTS: Final = 12
_SHOWN_COUNTS: Final = 10
# What counts, beside 1 for a mean imbalance of 100 % over the judged counts: that of the wished
# counts; each doubling away from the usual lanes per worker; a share of shards above the target,
# which the rule of thumb gives, and which weighs more as long as no counts are wished.
_WISH_WEIGHT: Final = 4.0
_DOUBLING_WEIGHT: Final = 0.05
_SHARDS_WEIGHT: Final = 0.05
_RULE_WEIGHT: Final = 0.15


@dataclass(frozen=True)
class SplitSize:
    """The size of a split: its bytes as records, and its examples, None if they are not known."""

    total_bytes: int
    num_examples: int | None = None


def choose_num_lanes(policy: LayoutPolicy, splits: Sequence[SplitSize]) -> int:
    """Return the number of lanes of a data set, a multiple of ``policy.num_workers``.

    Every wished number of workers gets a lane for each worker, and evenly many where their least
    common multiple is small. Further lanes are taken as far as the smallest split fills shards of
    the minimum size.

    Args:
      policy: the bounds of the layout.
      splits: the sizes of the splits.
    """
    fewest = _fewest_lanes(policy)
    room = min(_max_lanes(policy, split) for split in splits)
    most = min(room, _MAX_LANES_PER_WORKER * policy.all_counts[-1])
    candidates = [fewest, *range(fewest, most + 1, policy.num_workers)]
    judged = _judged_counts(policy.num_workers)
    return min(candidates, key=lambda lanes: (_cost(lanes, policy, judged), lanes))


def counts_that_matter(layout: ShardLayout) -> tuple[int, ...]:
    """Return up to ten numbers of workers to look at, ascending: planned, near, and even ones."""
    near = range(layout.num_workers - 2, layout.num_workers + 3)
    divisors = [count for count in range(1, layout.num_lanes + 1) if layout.num_lanes % count == 0]
    divisors.sort(key=lambda count: abs(math.log(count / layout.num_workers)))
    wanted = dict.fromkeys([layout.num_workers, *layout.worker_counts, *near, *divisors])
    fitting = [count for count in wanted if 1 <= count <= layout.num_lanes]
    return tuple(sorted(fitting[:_SHOWN_COUNTS]))


def _fewest_lanes(policy: LayoutPolicy) -> int:
    """Return the lanes that the wished counts need, whatever the size of the data."""
    together, largest = math.lcm(*policy.all_counts), policy.all_counts[-1]
    if together <= _LANES_PER_WORKER * largest:
        return together
    return -(-largest // policy.num_workers) * policy.num_workers


def _max_lanes(policy: LayoutPolicy, split: SplitSize) -> int:
    """Return the number of lanes that can have _SHARDS_PER_LANE shards of the minimum size."""
    lanes = split.total_bytes // policy.min_shard_bytes // _SHARDS_PER_LANE
    return lanes if split.num_examples is None else min(lanes, split.num_examples)


def _judged_counts(num_workers: int) -> list[int]:
    """Return other numbers of workers, up to twice `num_workers`, near ones first."""
    if num_workers <= _JUDGED_COUNTS:
        others = (count for count in range(1, 2 * num_workers + 1) if count != num_workers)
        return sorted(others, key=lambda count: abs(count - num_workers))[:_JUDGED_COUNTS]
    changes = [max(1, num_workers // part) for part in (1000, 100, 20, 8, 4, 2)]
    return [num_workers + sign * change for change in changes for sign in (-1, 1)]


def _cost(num_lanes: int, policy: LayoutPolicy, judged: Iterable[int]) -> float:
    target = policy.shards_per_worker * policy.num_workers
    usual = min(_LANES_PER_WORKER * policy.all_counts[-1], max(1, target // _SHARDS_PER_LANE))
    num_shards = -(-target // num_lanes) * num_lanes
    is_wished = policy.all_counts != (policy.num_workers,)
    return (
        _WISH_WEIGHT * _mean_imbalance(num_lanes, policy.all_counts)
        + _mean_imbalance(num_lanes, judged)
        + _DOUBLING_WEIGHT * abs(math.log2(num_lanes / usual))
        + (_SHARDS_WEIGHT if is_wished else _RULE_WEIGHT) * (num_shards - target) / target
    )


def _mean_imbalance(num_lanes: int, counts: Iterable[int]) -> float:
    """Return the mean over counts, 1 for a count that cannot share the lanes at all."""
    costs = [imbalance(num_lanes, count) if count <= num_lanes else 1.0 for count in counts]
    return sum(costs) / len(costs)
