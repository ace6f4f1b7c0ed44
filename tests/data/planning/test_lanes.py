"""The shards of a worker, and its steps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenfold.data.errors import UserError
from tenfold.data.format.manifest import Manifest, ShardInfo, Split, shard_name
from tenfold.data.planning.lanes import assign_lanes, deal_lanes


def manifest_of(records: list[int], num_lanes: int) -> Manifest:
    shards = tuple(
        ShardInfo(shard_name("train", index, len(records)), count, count * 20, 0, index)
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
        manifest, "train", num_workers=1, global_batch_size=batch, drop_remainder=False
    )
    assert (whole.steps_per_epoch, whole.tail_steps) == (evaluation, 0)
    if training == (0, 0):
        with pytest.raises(UserError, match="too few for one global batch"):
            assign_lanes(manifest, "train", num_workers=1, global_batch_size=batch)
        return
    (worker,) = assign_lanes(manifest, "train", num_workers=1, global_batch_size=batch)
    assert (worker.steps_per_epoch, worker.tail_steps) == training


@given(
    per_lane=st.integers(1, 4),
    lanes=st.sampled_from([1, 2, 4, 6, 8, 12]),
    least=st.integers(5, 40),
    lane_batch=st.integers(1, 5),
    data=st.data(),
)
def test_every_worker_count_shares_the_same_lanes(
    per_lane: int, lanes: int, least: int, lane_batch: int, data: st.DataObject
) -> None:
    count = per_lane * lanes
    records = data.draw(st.lists(st.integers(least, least + 3), min_size=count, max_size=count))
    manifest = manifest_of(records, lanes)
    for workers in (n for n in range(1, lanes + 1) if lanes % n == 0):
        shares = assign_lanes(
            manifest, "train", num_workers=workers, global_batch_size=lane_batch * lanes
        )
        assert [lane for share in shares for lane in share.lanes] == list(
            deal_lanes(manifest.split("train"), lanes)
        )
        assert len({(s.steps_per_epoch, s.tail_steps, s.batch_size) for s in shares}) == 1
        assert sum(share.num_records for share in shares) == sum(records)
        length = (shares[0].steps_per_epoch + shares[0].tail_steps) * lane_batch
        longest = max(lane.num_records for share in shares for lane in share.lanes)
        assert longest <= length < longest + lane_batch


@pytest.mark.parametrize(
    ("workers", "batch", "message"),
    [
        (3, 8, r"3 workers cannot share 4 lanes evenly: take one of \[1, 2, 4\]"),
        (0, 8, "0 workers cannot share"),
        (2, 6, "take 4 or 8"),
        (2, 3, "take 4"),
        (2, 0, "take 4"),
        (2, 400, "80 records, too few for one global batch of 400"),
    ],
)
def test_uneven_numbers_are_refused_with_near_ones(workers: int, batch: int, message: str) -> None:
    manifest = manifest_of([20] * 4, 4)
    with pytest.raises(UserError, match=message):
        assign_lanes(manifest, "train", num_workers=workers, global_batch_size=batch)
