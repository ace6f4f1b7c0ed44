"""The planner's arithmetic, as commented tables and as properties."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenfold.data.errors import UserError
from tenfold.data.planning.layout import MB, LayoutPolicy
from tenfold.data.planning.plan_layout import (
    plan_layout,
)

GB = 1000 * MB


@pytest.mark.parametrize(
    ("total", "examples", "policy", "shards"),
    [
        # the rule of thumb's own example: ten shards of 250 MB for each of four workers
        (10 * GB, None, LayoutPolicy(num_workers=4), 40),
        # within the bounds: the target
        (4 * GB, None, LayoutPolicy(num_workers=4), 40),
        # one byte over 250 MB a shard: one more for each lane
        (10 * GB + 1, None, LayoutPolicy(num_workers=4), 44),
        # 100 GB needs 400 shards of 250 MB
        (100 * GB, None, LayoutPolicy(num_workers=4), 400),
        # 200 MB: 20 shards of 10 MB
        (200 * MB, None, LayoutPolicy(num_workers=4), 20),
        # 79 MB: seven of 10 MB would not divide among four workers, four do
        (79 * MB, None, LayoutPolicy(num_workers=4), 4),
        # far too small: one shard per lane all the same
        (1000, None, LayoutPolicy(num_workers=4), 4),
        # a multiple of every worker count: 8 lanes
        (10 * GB, None, LayoutPolicy(num_workers=4, worker_counts=(1, 2, 4, 8)), 40),
        # lcm(3, 4) = 12: 40 becomes 48
        (10 * GB, None, LayoutPolicy(num_workers=4, worker_counts=(3,)), 48),
        # one worker
        (2500 * MB, None, LayoutPolicy(num_workers=1), 10),
        # whole records: 250 MB holds two records of 100 MB, so 100 of them need 50, rounded up
        (10 * GB, 100, LayoutPolicy(num_workers=4), 52),
        # fewer records than shards: none may be empty
        (10 * GB, 30, LayoutPolicy(num_workers=4), 28),
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
    examples = min(max(examples, policy.num_lanes), max(total, policy.num_lanes))
    total = max(total, examples)
    layout = plan_layout(total, examples, policy)
    for count in policy.all_counts:
        assert layout.num_lanes % count == 0
        assert layout.num_shards % count == 0
    assert layout.num_lanes == math.lcm(*policy.all_counts)
    assert layout.num_lanes <= layout.num_shards <= examples
    fewest, most = layout.records_per_shard_min, layout.records_per_shard_max
    assert fewest is not None
    assert most is not None
    assert most - fewest == (examples % layout.num_shards > 0)
    # A broken bound has a warning.
    if layout.shard_bytes_max > policy.max_shard_bytes:
        assert layout.warnings
    if layout.shard_bytes_mean < policy.min_shard_bytes:
        assert layout.warnings


def test_whole_records_keep_to_the_maximum_size() -> None:
    """41 records of 1 MB in 4 shards of at most 10 MB: one shard would have to hold 11."""
    policy = LayoutPolicy(num_workers=4, shards_per_worker=1, max_shard_bytes=10 * 10**6)
    layout = plan_layout(41 * 10**6, 41, policy)
    assert layout.num_shards == 8
    assert layout.shard_bytes_max <= 10 * 10**6
