"""The input and output of planning: source statistics, layout policy, shard layout."""

from dataclasses import dataclass
from typing import Final

from tenfold.data.errors import UserError

MB: Final = 10**6


@dataclass(frozen=True)
class SourceStats:
    """The statistics of a scanned source.

    Attributes:
      num_examples: the number of examples.
      total_bytes: the size of all records in shards: payload, Example and TFRecord framing.
      max_record_bytes: the same of the largest record.
      label_names: the names of the classes.
      num_classes: the number of classes; 0 if labels are no classes, None if that is not known.
      fingerprint: changes when names, sizes or modification times in the source do.
    """

    num_examples: int
    total_bytes: int
    max_record_bytes: int
    label_names: tuple[str, ...] = ()
    fingerprint: str = ""
    num_classes: int | None = None

    @property
    def mean_record_bytes(self) -> float:
        """Mean bytes of a framed record."""
        return self.total_bytes / self.num_examples


@dataclass(frozen=True)
class LayoutPolicy:
    """The bounds of a layout: the rule of thumb, and the numbers of workers that it is for.

    Attributes:
      num_workers: the number of workers that will train.
      worker_counts: further numbers of workers that should share the shards evenly.
      shards_per_worker: shards for each worker to read, within the bounds on their size.
      min_shard_bytes: the smallest size of a shard.
      max_shard_bytes: the largest size of a shard.

    Raises:
      UserError: a number is below 1, or the bounds contradict each other.
    """

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
                f"({self.max_shard_bytes:,} B): lower the first or raise the second"
            )

    @property
    def all_counts(self) -> tuple[int, ...]:
        """All numbers of workers that the layout is for, ascending."""
        return tuple(sorted({self.num_workers, *self.worker_counts}))


@dataclass(frozen=True)
class ShardLayout:
    """The numbers of shards and lanes, and the spread of the records over them.

    Attributes:
      num_shards: the number of shards, a multiple of `num_lanes`.
      num_lanes: the number of lanes, a multiple of `num_workers`.
      num_workers: the number of workers that the layout is planned for.
      worker_counts: all numbers of workers that the layout is planned for.
      total_bytes: the size of all records in shards.
      num_examples: the number of records; None if only the size of the data is known.
      max_record_bytes: the size of the largest record; 0 if it is not known.
      reasons: an explanation of each deviation from the rule of thumb.
      warnings: a line on each bound that the layout breaks.
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
        assert self.num_lanes % self.num_workers == 0, (self.num_lanes, self.num_workers)

    @property
    def shards_per_worker(self) -> int:
        """Shards for each of `num_workers` workers."""
        return self.num_shards // self.num_workers

    @property
    def records_per_shard_min(self) -> int | None:
        """Records in the smallest shard; None if the number of examples is not known."""
        return None if self.num_examples is None else self.num_examples // self.num_shards

    @property
    def records_per_shard_max(self) -> int | None:
        """Records in the largest shard, at most one more than in the smallest; None as above."""
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
