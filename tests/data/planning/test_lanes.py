"""The shards of a worker, and its steps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenfold.data.errors import UserError
from tenfold.data.format.manifest import Manifest, ShardInfo, Split, shard_name
from tenfold.data.planning.batch_shares import BatchShares
from tenfold.data.planning.lanes import (
    DROP,
    PAD,
    REMAINDERS,
    REPEAT,
    assign_lanes,
    deal_lanes,
    split_evenly,
)


def manifest_of(records: list[int], num_lanes: int) -> Manifest:
    shards = tuple(
        ShardInfo(
            shard_name("train", index, len(records)), count, count * 20, 0, index * (count > 0)
        )
        for index, count in enumerate(records)
    )
    return Manifest(num_lanes, (num_lanes,), (), (Split("train", shards),))


# (records of each shard, lanes, batch) -> (steps, tail steps) of training, steps of evaluation
TABLE = [
    ([8, 8, 8, 8], 2, 4, (8, 0), 8),  # everything divides
    ([8, 8, 8, 7], 2, 4, (7, 1), 8),  # one record short: its lane's last batch is left over
    ([5, 5], 2, 10, (1, 0), 1),  # one step
    ([9, 1], 2, 4, (0, 0), 5),  # the shortest lane has no batch: refused
    ([10, 2], 2, 4, (1, 4), 5),  # uneven lanes: many records are left over
    ([3], 1, 2, (1, 1), 2),  # one shard
]


@pytest.mark.parametrize(("records", "lanes", "batch", "training", "evaluation"), TABLE)
def test_steps_of_training_and_evaluation(
    records: list[int], lanes: int, batch: int, training: tuple[int, int], evaluation: int
) -> None:
    manifest = manifest_of(records, lanes)
    (whole,) = assign_lanes(
        manifest, "train", num_workers=1, global_batch_size=batch, remainder=PAD
    )
    assert (whole.steps_per_epoch, whole.tail_steps) == (evaluation, 0)
    if training == (0, 0):
        with pytest.raises(UserError, match="too few for one global batch"):
            assign_lanes(manifest, "train", num_workers=1, global_batch_size=batch)
        return
    (worker,) = assign_lanes(manifest, "train", num_workers=1, global_batch_size=batch)
    assert (worker.steps_per_epoch, worker.tail_steps) == training


@given(
    lanes=st.integers(1, 12),
    per_lane=st.integers(1, 3),
    batch=st.integers(1, 60),
    remainder=st.sampled_from(REMAINDERS),
    data=st.data(),
)
def test_every_number_of_workers_shares_the_same_batches(
    lanes: int, per_lane: int, batch: int, remainder: str, data: st.DataObject
) -> None:
    count = per_lane * lanes
    records = data.draw(st.lists(st.integers(20, 23), min_size=count, max_size=count))
    if remainder == DROP:
        batch = min(batch, 20 * count // 2)
    manifest = manifest_of(records, lanes)
    for workers in range(1, lanes + 1):
        shares = assign_lanes(
            manifest, "train", num_workers=workers, global_batch_size=batch, remainder=remainder
        )
        assert [lane for share in shares for lane in share.lanes] == list(
            deal_lanes(manifest.split("train"), lanes)
        )
        assert max(len(s.lanes) for s in shares) - min(len(s.lanes) for s in shares) <= 1
        assert len({(s.steps_per_epoch, s.tail_steps) for s in shares}) == 1
        first = shares[0]
        steps = range(first.steps_per_epoch)
        per_step = [[share.records(step) for share in shares] for step in steps]
        assert [sum(parts) for parts in per_step] == [first.global_records(s) for s in steps]
        assert sum(map(sum, per_step)) == first.epoch_records
        tail = range(first.steps_per_epoch, first.steps_per_epoch + first.tail_steps)
        left = sum(share.records(step) for share in shares for step in tail)
        assert first.epoch_records + left - first.repeated_records == sum(records)
        assert first.tail_steps == 0 or remainder == DROP
        for replicas in (1, 2):
            parts = [
                [size for records in step for size in split_evenly(records, replicas)]
                for step in per_step
            ]
            if first.is_even(replicas):
                assert all(len(set(sizes)) == 1 for sizes in parts)
            if not first.may_be_empty(replicas):
                assert all(min(sizes) > 0 for sizes in parts)


@given(lanes=st.integers(1, 40), batch=st.integers(1, 100), steps=st.integers(0, 60))
def test_shares_of_lanes_make_whole_batches(lanes: int, batch: int, steps: int) -> None:
    shares = BatchShares(batch, lanes)
    taken = [shares.taken(lane, steps) for lane in range(lanes)]
    assert sum(taken) == steps * batch
    assert max(taken) - min(taken) <= 1
    for lane, count in enumerate(taken):
        assert shares.full_steps(lane, count) >= steps
        assert shares.steps_to_end(lane, count) <= steps
        assert count - shares.taken(lane, max(0, steps - 1)) <= shares.max_lane_records


@pytest.mark.parametrize("workers", [2, 3, 4, 6])
def test_a_small_batch_is_spread_over_the_workers(workers: int) -> None:
    """Of 24 lanes, 12 give a record to a batch of 12: near each other in turn, not in place."""
    manifest = manifest_of([50] * 24, 24)
    shares = assign_lanes(manifest, "train", num_workers=workers, global_batch_size=12)
    for step in range(shares[0].steps_per_epoch):
        parts = [share.records(step) for share in shares]
        assert max(parts) - min(parts) <= 2
    assert not shares[0].may_be_empty(1)


def test_parts_of_one_replica_are_even_with_smaller_batches() -> None:
    manifest = manifest_of([8, 8, 8, 7], 2)
    (sole,) = assign_lanes(manifest, "train", num_workers=1, global_batch_size=4, remainder=PAD)
    assert sole.has_smaller_batches
    assert sole.is_even(1)
    assert not sole.may_be_empty(1)
    assert not sole.is_even(2)
    assert sole.records_between(6, sole.steps_per_epoch) == 7


def test_batch_that_finds_only_empty_lanes_is_known() -> None:
    """Lanes 0 and 1 have one record more; batches of 2 take two lanes each."""
    manifest = manifest_of([3, 3, 2, 2, 2, 2, 2, 2], 8)
    (sole,) = assign_lanes(manifest, "train", num_workers=1, global_batch_size=2, remainder=PAD)
    assert sole.short_steps == (0, 1, 0, 1)
    assert sole.may_be_empty(1)
    assert not sole.is_even(1)


@pytest.mark.parametrize(
    ("records", "remainder", "message"),
    [
        ([9, 1], DROP, "10 records, but a lane with 1 record only, too few for one global batch"),
        ([9, 0], REPEAT, "9 records, but a lane with 0 records only, too few"),
    ],
)
def test_lane_with_too_few_records_is_refused(
    records: list[int], remainder: str, message: str
) -> None:
    manifest = manifest_of(records, 2)
    with pytest.raises(UserError, match=message):
        assign_lanes(manifest, "train", num_workers=1, global_batch_size=4, remainder=remainder)


@pytest.mark.parametrize(
    ("workers", "batch", "message"),
    [
        (5, 8, "5 workers cannot share 4 lanes: take at most 4 workers"),
        (0, 8, "num_workers is 0"),
        (2, 0, "global_batch_size is 0"),
        (2, 400, "80 records, too few for one global batch of 400"),
    ],
)
def test_impossible_numbers_are_refused(workers: int, batch: int, message: str) -> None:
    manifest = manifest_of([20] * 4, 4)
    with pytest.raises(UserError, match=message):
        assign_lanes(manifest, "train", num_workers=workers, global_batch_size=batch)
