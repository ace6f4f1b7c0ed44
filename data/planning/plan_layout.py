"""The planner: the number of shards of a data set. Pure.

The rule of thumb (TensorFlow's guide to distributed input): about ten shards per worker, each
of 10 to 250 MB. If both cannot hold, the number of shards per worker changes, never the even
division among workers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from tenfold.data.errors import UserError
from tenfold.data.format.manifest import check_split_name
from tenfold.data.planning.layout import LayoutPolicy, ShardLayout
from tenfold.data.planning.split_names import standard_split_name
from tenfold.data.units import format_size, plural

# Fractions as 0.7 + 0.2 + 0.1 do not sum to 1 exactly.
_ROUNDING: Final = 1e-9


def plan_layout(
    total_bytes: int,
    num_examples: int | None = None,
    policy: LayoutPolicy | None = None,
    *,
    max_record_bytes: int = 0,
    split: str = "",
) -> ShardLayout:
    """Return the layout of a data set, or of one split.

    Args:
      total_bytes: the size of all records in shards, framing included.
      num_examples: the number of records; None if it is not known.
      policy: the bounds; by default ten shards of 10 to 250 MB for each of four workers.
      max_record_bytes: the size of the largest record, for warnings; 0 if it is not known.
      split: the name of the split, for messages; "" for a whole data set.

    Raises:
      UserError: the sizes are not positive, or there are fewer examples than lanes.
    """
    policy = policy or LayoutPolicy()
    subject = f"split '{split}'" if split else "the data set"
    _check_sizes(total_bytes, num_examples, policy, subject)
    num_shards, reasons = _num_shards(total_bytes, num_examples, policy)
    layout = ShardLayout(
        num_shards=num_shards,
        num_lanes=policy.num_lanes,
        num_workers=policy.num_workers,
        worker_counts=policy.all_counts,
        total_bytes=total_bytes,
        num_examples=num_examples,
        max_record_bytes=max_record_bytes,
        reasons=tuple(reasons),
    )
    return _with_warnings(layout, policy)


def _check_sizes(
    total_bytes: int, num_examples: int | None, policy: LayoutPolicy, subject: str
) -> None:
    if total_bytes < 1:
        raise UserError(f"{subject} has {total_bytes} bytes: there is nothing to plan")
    if num_examples is None:
        return
    if num_examples < 1:
        raise UserError(f"{subject} has {num_examples} examples: there is nothing to plan")
    if num_examples > total_bytes:
        raise UserError(
            f"{num_examples:,} examples do not fit into {total_bytes:,} bytes: "
            "check --dataset_size and --num_examples"
        )
    if num_examples < policy.num_lanes:
        raise UserError(
            f"{subject} has {plural(num_examples, 'example')}, which cannot fill "
            f"{policy.num_lanes} lanes (the least common multiple of the worker counts "
            f"{list(policy.all_counts)}): take fewer workers or more data"
        )


def _num_shards(
    total_bytes: int, num_examples: int | None, policy: LayoutPolicy
) -> tuple[int, list[str]]:
    """Return the number of shards, and the reasons for deviating from the rule of thumb."""
    lanes = policy.num_lanes
    target = policy.shards_per_worker * policy.num_workers
    num_shards = _round_up(target, lanes)
    reasons = []
    if num_shards != target:
        reasons.append(
            f"{plural(num_shards, 'shard')} instead of {target:,}: a multiple of {lanes} "
            f"divides evenly among {_listing(policy.all_counts)} workers"
        )
    highest = _max_shards(total_bytes, policy)
    lowest = _min_shards(total_bytes, num_examples, policy)
    if num_shards > highest:
        reasons.append(
            f"{plural(highest, 'shard')} instead of {num_shards:,}: more would each be under "
            f"{format_size(policy.min_shard_bytes)}"
            + (f" (one per lane, {lanes}, is the fewest)" if highest == lanes else "")
        )
        num_shards = highest
    if num_shards < lowest:
        reasons.append(
            f"{plural(lowest, 'shard')} instead of {num_shards:,}: fewer would each be over "
            f"{format_size(policy.max_shard_bytes)}"
        )
        num_shards = lowest
    return _no_empty_shard(num_shards, num_examples, lanes, reasons), reasons


def _max_shards(total_bytes: int, policy: LayoutPolicy) -> int:
    """The highest number of shards that have the minimum size; at least one per lane."""
    num_shards = total_bytes // policy.min_shard_bytes
    return max(num_shards // policy.num_lanes * policy.num_lanes, policy.num_lanes)


def _min_shards(total_bytes: int, num_examples: int | None, policy: LayoutPolicy) -> int:
    """The lowest number of shards that keep to the maximum size, in whole records."""
    if num_examples is None:
        return _round_up(-(-total_bytes // policy.max_shard_bytes), policy.num_lanes)
    records_per_shard = max(policy.max_shard_bytes * num_examples // total_bytes, 1)
    return _round_up(-(-num_examples // records_per_shard), policy.num_lanes)


def _no_empty_shard(
    num_shards: int, num_examples: int | None, lanes: int, reasons: list[str]
) -> int:
    if num_examples is None or num_shards <= num_examples:
        return num_shards
    fewer = num_examples // lanes * lanes
    reasons.append(
        f"{plural(fewer, 'shard')} instead of {num_shards:,}: there are only "
        f"{plural(num_examples, 'example')}, and no shard may be empty"
    )
    return fewer


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def _listing(counts: Sequence[int]) -> str:
    *others, last = (str(count) for count in counts)
    return f"{', '.join(others)} and {last}" if others else last


def _with_warnings(layout: ShardLayout, policy: LayoutPolicy) -> ShardLayout:
    warnings = []
    if layout.shard_bytes_mean < policy.min_shard_bytes:
        warnings.append(
            f"shards of {format_size(layout.shard_bytes_mean)} are under "
            f"{format_size(policy.min_shard_bytes)}: the data is small"
            + _for_lanes(layout.num_lanes)
        )
    largest = max(layout.shard_bytes_max, layout.max_record_bytes)
    if largest > policy.max_shard_bytes:
        warnings.append(
            f"the largest shard will have about {format_size(largest)}, over "
            f"{format_size(policy.max_shard_bytes)}: single records are that large, "
            "or --min_shard_size is too close to --max_shard_size"
        )
    return ShardLayout(**{**vars(layout), "warnings": tuple(warnings)})


def _for_lanes(num_lanes: int) -> str:
    if num_lanes == 1:
        return ""
    return f" for {num_lanes} lanes; fewer worker counts would give larger shards"


@dataclass(frozen=True)
class SplitFraction:
    """A split's name and its share of the examples, above 0 and at most 1."""

    name: str
    fraction: float

    def __post_init__(self) -> None:
        check_split_name(self.name)
        if not 0 < self.fraction <= 1:
            raise UserError(
                f"split '{self.name}' has the fraction {self.fraction:g}: "
                "it must be above 0 and at most 1"
            )


def parse_splits(text: str) -> tuple[SplitFraction, ...]:
    """Return the splits that ``train:0.9,validation:0.1`` names, by their standard names.

    Raises:
      UserError: a name or fraction is wrong, a name comes twice, or the sum is not 1.
    """
    splits = tuple(_parse_split(part.strip()) for part in text.split(","))
    names = [split.name for split in splits]
    if len(set(names)) < len(names):
        raise UserError(f"--split={text}: a split is named twice")
    check_fractions(splits, f"--split={text}")
    return splits


def check_fractions(splits: Sequence[SplitFraction], where: str) -> None:
    """Check that the fractions sum to 1; `where` names their place in the message.

    Raises:
      UserError: they do not.
    """
    total = sum(split.fraction for split in splits)
    if abs(total - 1) > _ROUNDING:
        raise UserError(f"{where}: the fractions sum to {total:g}, they must sum to 1")


def _parse_split(text: str) -> SplitFraction:
    name, colon, number = text.partition(":")
    check_split_name(name)
    try:
        return SplitFraction(standard_split_name(name), float(number) if colon else 1.0)
    except ValueError:  # no number, or a fraction out of range
        raise UserError(
            f"split '{text}': write NAME:FRACTION with a fraction above 0, at most 1"
        ) from None


def split_counts(num_examples: int, splits: Sequence[SplitFraction]) -> tuple[int, ...]:
    """Return the number of examples of each split: cumulative fractions, rounded.

    The numbers sum to `num_examples`.

    Raises:
      UserError: a split would be empty.
    """
    bounds = [0]
    share = 0.0
    for split in splits:
        share += split.fraction
        bounds.append(round(num_examples * share))
    bounds[-1] = num_examples
    counts = tuple(end - start for start, end in pairwise(bounds))
    for split, count in zip(splits, counts, strict=True):
        if count < 1:
            raise UserError(
                f"split '{split.name}' gets none of {plural(num_examples, 'example')} "
                f"at a fraction of {split.fraction:g}: raise the fraction"
            )
    return counts
