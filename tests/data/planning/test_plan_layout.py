"""The planner's arithmetic, as commented tables and as properties."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenfold.data.errors import UserError
from tenfold.data.planning.lane_count import SplitSize, choose_num_lanes, counts_that_matter
from tenfold.data.planning.lanes import imbalance
from tenfold.data.planning.layout import MB, LayoutPolicy
from tenfold.data.planning.plan_layout import (
    plan_layout,
)

GB = 1000 * MB


@pytest.mark.parametrize(
    ("total", "examples", "policy", "shards"),
    [
        # the rule of thumb's own example: ten shards for each of four workers, in 20 lanes
        (10 * GB, None, LayoutPolicy(num_workers=4), 40),
        # within the bounds: the same
        (4 * GB, None, LayoutPolicy(num_workers=4), 40),
        # one byte over 250 MB a shard: one more for each lane
        (10 * GB + 1, None, LayoutPolicy(num_workers=4), 60),
        # 100 GB needs 400 shards of 250 MB, a multiple of 20
        (100 * GB, None, LayoutPolicy(num_workers=4), 400),
        # 200 MB: 20 shards of 10 MB would not divide among 8 lanes, 16 do
        (200 * MB, None, LayoutPolicy(num_workers=4), 16),
        # 79 MB: seven of 10 MB would not divide among four workers, four do
        (79 * MB, None, LayoutPolicy(num_workers=4), 4),
        # far too small: one shard per lane all the same
        (1000, None, LayoutPolicy(num_workers=4), 4),
        # wished counts have 24 lanes, which 1, 2, 3, 4, 6 and 8 workers share evenly
        (10 * GB, None, LayoutPolicy(num_workers=4, worker_counts=(1, 2, 4, 8)), 48),
        # lcm(3, 4) = 12 divides 24
        (10 * GB, None, LayoutPolicy(num_workers=4, worker_counts=(3,)), 48),
        # one worker: four lanes
        (2500 * MB, None, LayoutPolicy(num_workers=1), 12),
        # whole records: 250 MB holds two records of 100 MB, so 100 of them need 50, rounded up
        (10 * GB, 100, LayoutPolicy(num_workers=4), 60),
        # fewer records than shards: none may be empty
        (10 * GB, 30, LayoutPolicy(num_workers=4), 20),
        # exactly as many records as lanes
        (10 * GB, 4, LayoutPolicy(num_workers=4), 4),
    ],
)
def test_number_of_shards(
    total: int, examples: int | None, policy: LayoutPolicy, shards: int
) -> None:
    layout = plan_layout(total, examples, policy)
    assert layout.num_shards == shards
    # Every deviation from the rule of thumb has a reason.
    assert bool(layout.reasons) == (shards != policy.shards_per_worker * policy.num_workers)


@pytest.mark.parametrize(
    ("total", "examples", "policy", "words"),
    [
        (0, None, {}, "nothing to plan"),
        (-5, None, {}, "nothing to plan"),
        (10, 0, {}, "nothing to plan"),
        (10, -1, {}, "nothing to plan"),
        (10, 11, {}, "do not fit into"),
        (10**6, 3, {"num_workers": 4}, "4 lanes"),
        (10**6, 11, {"num_workers": 4, "worker_counts": (3,)}, "12 lanes"),
        (10**6, None, {"min_shard_bytes": 20, "max_shard_bytes": 10}, "lower the first"),
        (10**6, None, {"num_workers": 0}, "num_workers is 0"),
        (10**6, None, {"shards_per_worker": 0}, "shards_per_worker is 0"),
        (10**6, None, {"worker_counts": (2, 0)}, "worker_counts"),
    ],
)
def test_impossible_sizes_are_refused(
    total: int, examples: int | None, policy: dict[str, int], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        plan_layout(total, examples, LayoutPolicy(**policy))  # type: ignore[arg-type]


def test_sizes_out_of_bounds_give_a_warning() -> None:
    assert "under 10 MB" in plan_layout(MB, 100).warnings[0]
    huge = plan_layout(100 * GB, 1000, max_record_bytes=300 * MB)
    assert "single records" in huge.warnings[0]
    assert not plan_layout(10 * GB, 10**6, max_record_bytes=MB).warnings


policies = st.builds(
    LayoutPolicy,
    num_workers=st.integers(1, 12),
    worker_counts=st.lists(st.integers(1, 12), max_size=3).map(tuple),
    shards_per_worker=st.integers(1, 20),
    min_shard_bytes=st.integers(1, 20 * MB),
    max_shard_bytes=st.integers(20 * MB, 500 * MB),
)


@given(st.integers(1, 10**13), st.integers(1, 10**7), policies)
def test_properties_of_every_layout(total: int, examples: int, policy: LayoutPolicy) -> None:
    enough = math.lcm(*policy.all_counts)
    examples = min(max(examples, enough), max(total, enough))
    total = max(total, examples)
    layout = plan_layout(total, examples, policy)
    assert layout.num_lanes % layout.num_workers == 0
    assert layout.num_shards % layout.num_lanes == 0
    assert policy.all_counts[-1] <= layout.num_lanes <= layout.num_shards <= examples
    fewest, most = layout.records_per_shard_min, layout.records_per_shard_max
    assert fewest is not None
    assert most is not None
    assert most - fewest == (examples % layout.num_shards > 0)
    # A broken bound has a warning.
    if layout.shard_bytes_max > policy.max_shard_bytes:
        assert layout.warnings
    if layout.shard_bytes_mean < policy.min_shard_bytes:
        assert layout.warnings


@pytest.mark.parametrize("num_workers", [2, 3, 4, 6, 8, 12, 16, 32, 64, 1000])
def test_fewer_workers_share_a_large_data_set_nearly_evenly(num_workers: int) -> None:
    num_lanes = plan_layout(num_workers * 3 * GB, None, LayoutPolicy(num_workers)).num_lanes
    assert imbalance(num_lanes, num_workers) == 0
    assert imbalance(num_lanes, max(1, num_workers - 1)) < 0.2
    counts = range(1, num_workers // 2 + 1)
    assert all(imbalance(num_lanes, count) < 0.2 for count in counts)


def test_lanes_keep_to_the_size_of_the_smallest_split() -> None:
    policy = LayoutPolicy(num_workers=4)
    large, small = SplitSize(100 * GB), SplitSize(30 * MB)
    assert choose_num_lanes(policy, [large]) == 20
    assert choose_num_lanes(policy, [large, small]) == 4
    assert choose_num_lanes(policy, [large, SplitSize(100 * GB, 10)]) == 8


def test_wished_counts_are_weighed() -> None:
    """Their least common multiple is taken where it is small, whatever the size of the data."""
    small = [SplitSize(MB)]
    assert choose_num_lanes(LayoutPolicy(4, worker_counts=(1, 2, 3)), small) == 12
    assert choose_num_lanes(LayoutPolicy(4, worker_counts=(5, 7)), small) == 8
    primes = LayoutPolicy(100_000, worker_counts=(1, 2, 3, 5, 7, 11, 13))
    lanes = choose_num_lanes(primes, [SplitSize(250 * 10**12)])
    assert lanes % 100_000 == 0
    assert lanes <= 600_000


def test_shown_counts_are_few_and_fit() -> None:
    layout = plan_layout(10 * GB, None, LayoutPolicy(num_workers=4, worker_counts=(7,)))
    counts = counts_that_matter(layout)
    assert {2, 3, 4, 5, 6, 7} <= set(counts)
    assert len(counts) <= 10
    assert list(counts) == sorted(set(counts))
    assert counts_that_matter(plan_layout(1000, None, LayoutPolicy(num_workers=1))) == (1,)


def test_whole_records_keep_to_the_maximum_size() -> None:
    """41 records of 1 MB in 4 shards of at most 10 MB: one shard would have to hold 11."""
    policy = LayoutPolicy(num_workers=4, shards_per_worker=1, max_shard_bytes=10 * 10**6)
    layout = plan_layout(41 * 10**6, 41, policy)
    assert layout.num_shards == 8
    assert layout.shard_bytes_max <= 10 * 10**6
