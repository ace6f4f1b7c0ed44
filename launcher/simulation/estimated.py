"""A fleet of any size on paper: what each host reads and how long an epoch takes. Pure.

Nothing here grows with the number of hosts or shards: shards differ by one record at most, and
dealt out in turn they differ in a known way.
"""

from dataclasses import dataclass

from tenfold.data.errors import UserError
from tenfold.data.planning.lanes import check_divides


@dataclass(frozen=True)
class DataSet:
    """A split as a plan lays it out: the first shards hold one record more than the last."""

    num_records: int
    num_bytes: int
    num_shards: int
    num_lanes: int


@dataclass(frozen=True)
class Rates:
    """What hosts can do; None: not stated, and not a limit.

    Per host: `records_per_s` that it can compute, `read_bytes_per_s` from storage,
    `network_bits_per_s`. `gradient_bytes` are summed over the hosts at each step;
    `request_bytes` is how much one request to storage fetches.
    """

    records_per_s: float | None = None
    read_bytes_per_s: float | None = None
    network_bits_per_s: float | None = None
    gradient_bytes: int = 0
    request_bytes: int = 8 * 10**6


@dataclass(frozen=True)
class Estimate:
    """One fleet's epoch. Seconds are of one step; rates are of all hosts together."""

    num_workers: int
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
        """Seconds of a step: the next batch is read while this one is computed."""
        return max(self.compute_s, self.input_s) + self.communication_s

    @property
    def epoch_s(self) -> float:
        """Seconds of an epoch, without its evaluation and checkpoint."""
        return self.steps_per_epoch * self.step_s


def lane_records(data: DataSet, lane: int) -> int:
    """Return the records of lane `lane`: shards lane, lane + num_lanes, … of all."""
    base, longer = divmod(data.num_records, data.num_shards)
    extra = longer // data.num_lanes + (lane < longer % data.num_lanes)
    return base * (data.num_shards // data.num_lanes) + extra


def worker_records(data: DataSet, worker: int, num_workers: int) -> int:
    """Return the records of a worker: its num_lanes / num_workers neighbouring lanes."""
    lanes = data.num_lanes // num_workers
    more = (data.num_records % data.num_shards) % data.num_lanes
    longer = min(max(more - worker * lanes, 0), lanes)
    return lanes * lane_records(data, data.num_lanes - 1) + longer


def estimate(data: DataSet, *, num_workers: int, global_batch_size: int, rates: Rates) -> Estimate:
    """Return what an epoch of `num_workers` hosts is like.

    The sum of the gradients takes the ring's bound, 2(N-1)/N x bytes / rate (Patarasuk and
    Yuan, 2009).

    Raises:
      UserError: the hosts cannot share the lanes, or the lanes the batch, or there are too few
        records for a step.
    """
    check_divides(data.num_lanes, num_workers, global_batch_size)
    steps = lane_records(data, data.num_lanes - 1) // (global_batch_size // data.num_lanes)
    if steps == 0:
        raise UserError(
            f"{data.num_records:,} records are too few for a global batch of "
            f"{global_batch_size:,}: lower --global_batch_size"
        )
    batch = global_batch_size / num_workers
    batch_bytes = batch * data.num_bytes / data.num_records
    ring_bits = 2 * (num_workers - 1) / num_workers * rates.gradient_bytes * 8
    return Estimate(
        num_workers=num_workers,
        shards_per_worker=data.num_shards // num_workers,
        records_per_worker_min=worker_records(data, num_workers - 1, num_workers),
        records_per_worker_max=worker_records(data, 0, num_workers),
        bytes_per_worker=-(-data.num_bytes // num_workers),
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
    """What storage has to give to all hosts together."""

    bytes_per_s: float
    requests_per_s: float
    requests_per_epoch: int


def storage_load(data: DataSet, found: Estimate, rates: Rates) -> StorageLoad | None:
    """Return the load on storage while training runs; None where no rate gives a time."""
    per_shard = max(1, -(-data.num_bytes // data.num_shards // rates.request_bytes))
    requests = per_shard * data.num_shards
    if not found.epoch_s:
        return None
    return StorageLoad(data.num_bytes / found.epoch_s, requests / found.epoch_s, requests)
