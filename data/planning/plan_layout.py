"""The planner: the number of shards of a data set. Pure.

The rule of thumb (TensorFlow's guide to distributed input): about ten shards per worker, each
of 10 to 250 MB. If both cannot hold, the number of shards per worker changes, never the even
division among workers.
"""

from collections.abc import Sequence

from tenfold.data.errors import UserError
from tenfold.data.planning.lane_count import SplitSize, choose_num_lanes
from tenfold.data.planning.layout import LayoutPolicy, ShardLayout
from tenfold.data.units import format_size, plural


def plan_layout(
    total_bytes: int,
    num_examples: int | None = None,
    policy: LayoutPolicy | None = None,
    *,
    num_lanes: int | None = None,
    max_record_bytes: int = 0,
    split: str = "",
) -> ShardLayout:
    """Return the layout of a data set, or of one split.

    Args:
      total_bytes: the size of all records in shards, framing included.
      num_examples: the number of records; None if it is not known.
      policy: the bounds; by default ten shards of 10 to 250 MB for each of four workers.
      num_lanes: the number of lanes, a multiple of the number of workers; None chooses it for this
        size.
      max_record_bytes: the size of the largest record, for warnings; 0 if it is not known.
      split: the name of the split, for messages; "" for a whole data set.

    Raises:
      UserError: the sizes are not positive, or there are fewer examples than lanes.
    """
    policy = policy or LayoutPolicy()
    subject = f"split '{split}'" if split else "the data set"
    _check_sizes(total_bytes, num_examples, subject)
    lanes = num_lanes or choose_num_lanes(policy, [SplitSize(total_bytes, num_examples)])
    if num_examples is not None and num_examples < lanes:
        raise UserError(
            f"{subject} has {plural(num_examples, 'example')}, which cannot fill the {lanes:,} "
            f"lanes for {_listing(policy.all_counts)} workers: take fewer workers or more data"
        )
    num_shards, reasons = _num_shards(total_bytes, num_examples, policy, lanes)
    layout = ShardLayout(
        num_shards=num_shards,
        num_lanes=lanes,
        num_workers=policy.num_workers,
        worker_counts=policy.all_counts,
        total_bytes=total_bytes,
        num_examples=num_examples,
        max_record_bytes=max_record_bytes,
        reasons=tuple(reasons),
    )
    return _with_warnings(layout, policy)


def _check_sizes(total_bytes: int, num_examples: int | None, subject: str) -> None:
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


def _num_shards(
    total_bytes: int, num_examples: int | None, policy: LayoutPolicy, lanes: int
) -> tuple[int, list[str]]:
    """Return the number of shards, and the reasons for deviating from the rule of thumb."""
    target = policy.shards_per_worker * policy.num_workers
    num_shards = _round_up(target, lanes)
    reasons = []
    if num_shards != target:
        reasons.append(
            f"{plural(num_shards, 'shard')} instead of {target:,}: a multiple of the {lanes:,} "
            f"lanes, which {_listing(policy.all_counts)} {_workers_share(policy, lanes)}"
        )
    highest = _max_shards(total_bytes, policy, lanes)
    lowest = _min_shards(total_bytes, num_examples, policy, lanes)
    if num_shards > highest:
        reasons.append(
            f"{plural(highest, 'shard')} instead of {num_shards:,}: more would each be under "
            f"{format_size(policy.min_shard_bytes)}"
            + (f" (one per lane, {lanes:,}, is the fewest)" if highest == lanes else "")
        )
        num_shards = highest
    if num_shards < lowest:
        reasons.append(
            f"{plural(lowest, 'shard')} instead of {num_shards:,}: fewer would each be over "
            f"{format_size(policy.max_shard_bytes)}"
        )
        num_shards = lowest
    return _no_empty_shard(num_shards, num_examples, lanes, reasons), reasons


def _max_shards(total_bytes: int, policy: LayoutPolicy, lanes: int) -> int:
    """The highest number of shards that have the minimum size; at least one per lane."""
    num_shards = total_bytes // policy.min_shard_bytes
    return max(num_shards // lanes * lanes, lanes)


def _min_shards(
    total_bytes: int, num_examples: int | None, policy: LayoutPolicy, lanes: int
) -> int:
    """The lowest number of shards that keep to the maximum size, in whole records."""
    if num_examples is None:
        return _round_up(-(-total_bytes // policy.max_shard_bytes), lanes)
    records_per_shard = max(policy.max_shard_bytes * num_examples // total_bytes, 1)
    return _round_up(-(-num_examples // records_per_shard), lanes)


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


def _workers_share(policy: LayoutPolicy, lanes: int) -> str:
    even = all(lanes % count == 0 for count in policy.all_counts)
    worker = "worker shares" if policy.all_counts == (1,) else "workers share"
    return f"{worker} {'evenly' if even else 'as evenly as the size of the shards allows'}"


def _listing(counts: Sequence[int]) -> str:
    *others, last = (f"{count:,}" for count in counts)
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
    return f" for {num_lanes:,} lanes; fewer workers would give larger shards"
