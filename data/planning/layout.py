"""The frozen types that the stages of the data path hand to each other."""

import math
from dataclasses import dataclass
from typing import Final

from tenfold.data.errors import UserError

MB: Final = 10**6


@dataclass(frozen=True)
class SourceStats:
    """What a scan of a source says without decoding it.

    `total_bytes` and `max_record_bytes` count what will lie in the shards: payload, Example
    and TFRecord framing. `fingerprint` changes when names, sizes or times of the source do.
    """

    num_examples: int
    total_bytes: int
    max_record_bytes: int
    label_names: tuple[str, ...] = ()
    fingerprint: str = ""

    @property
    def mean_record_bytes(self) -> float:
        """Mean bytes of a framed record."""
        return self.total_bytes / self.num_examples


@dataclass(frozen=True)
class LayoutPolicy:
    """What a layout should look like: the rule of thumb and the worker counts it must serve."""

    num_workers: int = 4
    worker_counts: tuple[int, ...] = ()
    shards_per_worker: int = 10
    min_shard_bytes: int = 10 * MB
    max_shard_bytes: int = 250 * MB

    def __post_init__(self) -> None:
        for name in ("num_workers", "shards_per_worker", "min_shard_bytes", "max_shard_bytes"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}: it must be at least 1")
        if any(count < 1 for count in self.worker_counts):
            raise UserError(f"worker_counts {list(self.worker_counts)}: each must be at least 1")
        if self.min_shard_bytes > self.max_shard_bytes:
            raise UserError(
                f"min_shard_size ({self.min_shard_bytes:,} B) is above max_shard_size "
                f"({self.max_shard_bytes:,} B): lower the one or raise the other"
            )

    @property
    def all_counts(self) -> tuple[int, ...]:
        """Every worker count that the layout must divide evenly by, ascending."""
        return tuple(sorted({self.num_workers, *self.worker_counts}))

    @property
    def num_lanes(self) -> int:
        """The least number of lanes that every worker count divides."""
        return math.lcm(*self.all_counts)


@dataclass(frozen=True)
class ShardLayout:
    """How many shards and lanes, and how the records spread over them.

    `num_examples` is None where only the size of the data is known. `reasons` explain every
    choice that differs from the plain rule of thumb; `warnings` what the user should change.
    """

    num_shards: int
    num_lanes: int
    num_workers: int
    worker_counts: tuple[int, ...]
    total_bytes: int
    num_examples: int | None = None
    max_record_bytes: int = 0
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        assert self.num_shards % self.num_lanes == 0, (self.num_shards, self.num_lanes)
        assert all(self.num_lanes % count == 0 for count in self.worker_counts)

    @property
    def shards_per_worker(self) -> int:
        """Shards that each of `num_workers` reads."""
        return self.num_shards // self.num_workers

    @property
    def records_per_shard_min(self) -> int | None:
        """Records in the smallest shard; None where the number of examples is not known."""
        return None if self.num_examples is None else self.num_examples // self.num_shards

    @property
    def records_per_shard_max(self) -> int | None:
        """Records in the largest shard: at most one more than in the smallest."""
        return None if self.num_examples is None else -(-self.num_examples // self.num_shards)

    @property
    def shard_bytes_mean(self) -> int:
        """Mean bytes of a shard, rounded up."""
        return -(-self.total_bytes // self.num_shards)

    @property
    def shard_bytes_max(self) -> int:
        """Expected bytes of the largest shard: its records at the mean record size, rounded up."""
        if self.num_examples is None:
            return self.shard_bytes_mean
        records = -(-self.num_examples // self.num_shards)
        return -(-self.total_bytes * records // self.num_examples)
