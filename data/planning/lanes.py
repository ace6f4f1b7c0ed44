"""Lanes: the division of shards that makes global batches independent of the worker count.

Shard i of a split belongs to lane i % num_lanes. Each of W workers reads num_lanes / W
neighbouring lanes, and every global batch takes the same number of records from every lane.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tenfold.data.errors import UserError
from tenfold.data.format.manifest import Manifest, ShardInfo, Split


@dataclass(frozen=True)
class Lane:
    """One lane of a split: its number among all lanes and its shards, in manifest order."""

    index: int
    shards: tuple[ShardInfo, ...]

    @property
    def num_records(self) -> int:
        """Records over the lane's shards."""
        return sum(shard.records for shard in self.shards)


@dataclass(frozen=True)
class WorkerShards:
    """The shards of a split that one worker reads, and the number of steps.

    Attributes:
      worker: the index of the worker, from 0.
      num_workers: the number of workers.
      lanes: the worker's lanes.
      lane_batch: the records that each global batch takes from each lane.
      steps_per_epoch: the steps of an epoch, equal on all workers.
      tail_steps: further steps that would reach every record that the epoch leaves over; equal
        on all workers.
    """

    worker: int
    num_workers: int
    lanes: tuple[Lane, ...]
    lane_batch: int
    steps_per_epoch: int
    tail_steps: int = 0

    @property
    def batch_size(self) -> int:
        """Records of each global batch that this worker reads."""
        return self.lane_batch * len(self.lanes)

    @property
    def num_records(self) -> int:
        """Records over the worker's lanes."""
        return sum(lane.num_records for lane in self.lanes)

    @property
    def shards(self) -> tuple[ShardInfo, ...]:
        """The worker's shards, lane by lane."""
        return tuple(shard for lane in self.lanes for shard in lane.shards)


def deal_lanes(split: Split, num_lanes: int) -> tuple[Lane, ...]:
    """Return all lanes of a split."""
    return tuple(Lane(lane, split.shards[lane::num_lanes]) for lane in range(num_lanes))


def assign_lanes(
    manifest: Manifest,
    split: str,
    *,
    num_workers: int,
    global_batch_size: int,
    drop_remainder: bool = True,
) -> tuple[WorkerShards, ...]:
    """Return the shards of every worker, by worker index.

    Args:
      manifest: the manifest of the data set.
      split: the name of the split.
      num_workers: the number of workers; it must divide the number of lanes.
      global_batch_size: records per step over all workers, a multiple of the number of lanes.
      drop_remainder: True for training: an epoch ends with the last step for which every lane has
        a full batch. False for evaluation: it ends with the step that reads the last record of
        the longest lane, and the caller pads the other lanes.

    Raises:
      UserError: the lanes cannot be divided among the workers, or the batch among the lanes, or
        the split has too few records for one batch.
    """
    num_lanes = manifest.num_lanes
    check_divides(num_lanes, num_workers, global_batch_size)
    lanes = deal_lanes(manifest.split(split), num_lanes)
    lane_batch = global_batch_size // num_lanes
    all_steps = _steps_per_epoch(lanes, lane_batch, drop_remainder=False)
    steps = _steps_per_epoch(lanes, lane_batch, drop_remainder=drop_remainder)
    if steps == 0:
        raise UserError(
            f"split '{split}' has {sum(lane.num_records for lane in lanes)} records, too few "
            f"for one global batch of {global_batch_size}: lower --global_batch_size"
        )
    per_worker = num_lanes // num_workers
    return tuple(
        WorkerShards(
            worker=worker,
            num_workers=num_workers,
            lanes=lanes[worker * per_worker : (worker + 1) * per_worker],
            lane_batch=lane_batch,
            steps_per_epoch=steps,
            tail_steps=all_steps - steps,
        )
        for worker in range(num_workers)
    )


def check_divides(num_lanes: int, num_workers: int, global_batch_size: int) -> None:
    """Check that the number of workers divides the lanes, and the lanes the batch.

    Raises:
      UserError: one does not; the message lists numbers that would.
    """
    if num_workers < 1 or num_lanes % num_workers:
        counts = [count for count in range(1, num_lanes + 1) if num_lanes % count == 0]
        raise UserError(
            f"{num_workers} workers cannot share {num_lanes} lanes evenly: take one of "
            f"{counts[:12]} workers, or write the shards with --worker_counts={num_workers}"
        )
    if global_batch_size < 1 or global_batch_size % num_lanes:
        below = global_batch_size // num_lanes * num_lanes
        near = f"{below} or {below + num_lanes}" if below > 0 else str(num_lanes)
        raise UserError(
            f"global_batch_size {global_batch_size} is not a multiple of the {num_lanes} lanes "
            f"of these shards (every batch takes equally from each): take {near}"
        )


def _steps_per_epoch(lanes: Sequence[Lane], lane_batch: int, *, drop_remainder: bool) -> int:
    if drop_remainder:
        return min(lane.num_records for lane in lanes) // lane_batch
    return -(-max(lane.num_records for lane in lanes) // lane_batch)
