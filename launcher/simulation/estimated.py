"""Estimate of a cluster of any size: the data of each host and the time of an epoch. Pure.

The cost of an estimate does not depend on the number of hosts or shards: shards differ by at most
one record, and are assigned to lanes in turn, so that closed formulas give the records of a lane.
"""

from dataclasses import dataclass

from tenfold.data.errors import UserError
from tenfold.data.planning.batch_shares import BatchShares
from tenfold.data.planning.lanes import check_workers, imbalance, lanes_of_worker


@dataclass(frozen=True)
class DataSet:
    """The sizes of a split as `plan` lays it out.

    Shard i belongs to lane i % num_lanes. The first num_records % num_shards shards hold one
    record more than the others.
    """

    num_records: int
    num_bytes: int
    num_shards: int
    num_lanes: int


@dataclass(frozen=True)
class Rates:
    """The rates of one host, and sizes; a rate of None is no limit.

    Attributes:
      records_per_s: records that one host trains on per second.
      read_bytes_per_s: bytes that one host reads from storage per second.
      network_bits_per_s: bandwidth of one host, in bits per second.
      gradient_bytes: bytes that are summed over the hosts at each step.
      request_bytes: bytes of one request to storage.
    """

    records_per_s: float | None = None
    read_bytes_per_s: float | None = None
    network_bits_per_s: float | None = None
    gradient_bytes: int = 0
    request_bytes: int = 8 * 10**6


@dataclass(frozen=True)
class Estimate:
    """The estimate of one epoch. `compute_s`, `input_s`, `communication_s` are of one step.

    `shards_per_worker` is that of the workers with the most lanes.
    """

    num_workers: int
    shards_per_worker_min: int
    shards_per_worker: int
    records_per_worker_min: int
    records_per_worker_max: int
    bytes_per_worker: int
    steps_per_epoch: int
    left_out: int
    compute_s: float
    input_s: float
    communication_s: float

    @property
    def step_s(self) -> float:
        """Seconds of a step, in which the next batch is read while the current is computed."""
        return max(self.compute_s, self.input_s) + self.communication_s

    @property
    def epoch_s(self) -> float:
        """Seconds of an epoch without its evaluation and checkpoint."""
        return self.steps_per_epoch * self.step_s


def lane_records(data: DataSet, lane: int) -> int:
    """Return the records of lane `lane`, which holds shards lane, lane + num_lanes, …"""
    base, longer_shards = divmod(data.num_records, data.num_shards)
    extra = longer_shards // data.num_lanes + (lane < longer_shards % data.num_lanes)
    return base * (data.num_shards // data.num_lanes) + extra


def worker_records(data: DataSet, worker: int, num_workers: int) -> int:
    """Return the records of a worker, which reads neighbouring lanes.

    The first lanes may hold one record more than the last.
    """
    lanes = lanes_of_worker(worker, num_workers=num_workers, num_lanes=data.num_lanes)
    longer_lanes = (data.num_records % data.num_shards) % data.num_lanes
    own_longer_lanes = min(max(longer_lanes - lanes.start, 0), len(lanes))
    return len(lanes) * lane_records(data, data.num_lanes - 1) + own_longer_lanes


def _steps_per_epoch(data: DataSet, shares: BatchShares) -> int:
    shortest = lane_records(data, data.num_lanes - 1)
    if shares.are_equal:
        return shortest // shares.max_lane_records
    return min(shares.full_steps(lane, lane_records(data, lane)) for lane in range(data.num_lanes))


def estimate(data: DataSet, *, num_workers: int, global_batch_size: int, rates: Rates) -> Estimate:
    """Return the estimate of one epoch.

    Summing the gradients takes the lower bound of a ring all-reduce, 2(N-1)/N x bytes / rate
    (Patarasuk and Yuan, 2009).

    Args:
      data: the sizes of the training split.
      num_workers: number of hosts, at most the number of lanes.
      global_batch_size: records per step over all hosts.
      rates: the rates of one host.

    Raises:
      UserError: there are more hosts than lanes, or the records are too few for one step.
    """
    check_workers(data.num_lanes, num_workers, global_batch_size)
    steps = _steps_per_epoch(data, BatchShares(global_batch_size, data.num_lanes))
    if steps == 0:
        raise UserError(
            f"{data.num_records:,} records are too few for a global batch of "
            f"{global_batch_size:,}: lower --global_batch_size"
        )
    # A step waits for the host with the most lanes.
    batch = global_batch_size / num_workers * (1 + imbalance(data.num_lanes, num_workers))
    records = [worker_records(data, worker, num_workers) for worker in range(num_workers)]
    batch_bytes = batch * data.num_bytes / data.num_records
    shards_per_lane = data.num_shards // data.num_lanes
    ring_bits = 2 * (num_workers - 1) / num_workers * rates.gradient_bytes * 8
    return Estimate(
        num_workers=num_workers,
        shards_per_worker_min=data.num_lanes // num_workers * shards_per_lane,
        shards_per_worker=-(-data.num_lanes // num_workers) * shards_per_lane,
        records_per_worker_min=min(records),
        records_per_worker_max=max(records),
        bytes_per_worker=-(-data.num_bytes * max(records) // data.num_records),
        steps_per_epoch=steps,
        left_out=data.num_records - steps * global_batch_size,
        compute_s=_seconds(batch, rates.records_per_s),
        input_s=_seconds(batch_bytes, rates.read_bytes_per_s),
        communication_s=_seconds(ring_bits, rates.network_bits_per_s),
    )


def _seconds(amount: float, rate: float | None) -> float:
    return amount / rate if rate else 0.0


@dataclass(frozen=True)
class StorageLoad:
    """The load on storage of all hosts together."""

    bytes_per_s: float
    requests_per_s: float
    requests_per_epoch: int


def storage_load(data: DataSet, found: Estimate, rates: Rates) -> StorageLoad | None:
    """Return the load on storage during an epoch, or None if `rates` gives no time."""
    per_shard = max(1, -(-data.num_bytes // data.num_shards // rates.request_bytes))
    requests = per_shard * data.num_shards
    if not found.epoch_s:
        return None
    return StorageLoad(data.num_bytes / found.epoch_s, requests / found.epoch_s, requests)
