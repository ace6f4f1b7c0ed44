"""`tenfold plan`: the number and size of the shards, and the reasons for them."""

import json
import sys
from typing import Any, Final

from absl import flags

from tenfold.data.errors import UserError
from tenfold.data.planning.layout import ShardLayout, SourceStats
from tenfold.data.planning.plan_layout import plan_layout
from tenfold.data.runtime.scratch_folder import scratch_folder
from tenfold.data.units import format_size, plural
from tenfold.launcher.cli.flags import Arguments, FlagValues, define_size
from tenfold.launcher.cli.write_flags import (
    define_plan_flags,
    policy_from_flags,
    source_options_from_flags,
)

USAGE: Final = "--source=PATH | --dataset_size=10GB [--num_examples=N] [--flag=value …]"


def define_flags(fv: FlagValues) -> None:
    """Define the flags of `plan`."""
    define_plan_flags(fv)
    define_size(fv, "dataset_size", None, "size of the data set as 10GB, instead of --source")
    flags.DEFINE_integer(
        "num_examples", None, "number of examples, with --dataset_size", flag_values=fv
    )
    flags.DEFINE_string(
        "plot",
        "",
        "save a drawing of the layout: plan.svg or plan.png, also at gs://…",
        flag_values=fv,
    )
    flags.DEFINE_enum(
        "format", "table", ["table", "json"], "form of the printed layout", flag_values=fv
    )


def run(fv: FlagValues, args: Arguments) -> int:
    """Print the layout; return the exit status."""
    args.expect_none()
    if fv.plot:
        from tenfold.launcher.display.plot_layout import plot_layout
        from tenfold.launcher.display.plots import check_plot_path

        check_plot_path(fv.plot)
    layout = layout_from_flags(fv)
    if fv.plot:
        plot_layout(layout, policy_from_flags(fv), fv.plot)
        print(f"saved {fv.plot}", file=sys.stderr)
    print(json.dumps(to_json(layout), indent=1) if fv.format == "json" else to_text(layout))
    return 0


def layout_from_flags(fv: FlagValues) -> ShardLayout:
    """Return the layout for the flags; scans --source if it is given.

    Raises:
      UserError: a flag is wrong or missing, or the source cannot be used.
    """
    policy = policy_from_flags(fv)
    stats = _stats(fv)
    return plan_layout(
        stats.total_bytes if stats else fv.dataset_size,
        stats.num_examples if stats else fv.num_examples,
        policy,
        max_record_bytes=stats.max_record_bytes if stats else 0,
    )


def _stats(fv: FlagValues) -> SourceStats | None:
    """Return the statistics of --source; None if --dataset_size is given instead."""
    if bool(fv.source) == (fv.dataset_size is not None):
        raise UserError("give either --source=PATH or --dataset_size=10GB")
    if not fv.source:
        return None
    if fv.num_examples is not None:
        raise UserError("--num_examples is for --dataset_size only: a --source is counted")
    from tenfold.data.sources.open_source import open_source

    with scratch_folder() as scratch:
        source = open_source(fv.source, scratch, source_options_from_flags(fv))
        for note in source.notes:
            print(note, file=sys.stderr)
        return source.stats


def to_json(layout: ShardLayout) -> dict[str, Any]:
    """Return the layout for --format=json."""
    names = (
        "num_shards",
        "num_lanes",
        "num_workers",
        "worker_counts",
        "shards_per_worker",
        "total_bytes",
        "num_examples",
        "shard_bytes_mean",
        "shard_bytes_max",
        "max_record_bytes",
        "records_per_shard_min",
        "records_per_shard_max",
        "reasons",
        "warnings",
    )
    return {name: getattr(layout, name) for name in names}


def to_text(layout: ShardLayout) -> str:
    """Return the layout as a table in text."""
    return "\n".join(f"{name:<18} {text}" for name, text in rows_of(layout))


def rows_of(layout: ShardLayout) -> list[tuple[str, str]]:
    """Return the rows of the table: a name and a text each."""
    rows = [
        ("data", _data(layout)),
        ("shards", f"{layout.num_shards:,} of {format_size(layout.shard_bytes_mean)}"),
        ("workers", f"{layout.num_workers:,}, {plural(layout.shards_per_worker, 'shard')} each"),
        ("lanes", f"{layout.num_lanes:,}: evenly read by {_show_counts(layout)}"),
    ]
    if layout.num_examples is not None:
        rows.append(("records per shard", _records(layout)))
    rows += [("because", reason) for reason in layout.reasons]
    return rows + [("warning", warning) for warning in layout.warnings]


def _data(layout: ShardLayout) -> str:
    size = format_size(layout.total_bytes)
    if layout.num_examples is None:
        return size
    return f"{plural(layout.num_examples, 'example')}, {size} as records"


def _records(layout: ShardLayout) -> str:
    fewest, most = layout.records_per_shard_min, layout.records_per_shard_max
    return f"{most:,}" if fewest == most else f"{fewest:,} or {most:,}"


def _show_counts(layout: ShardLayout) -> str:
    divisors = [n for n in range(1, layout.num_lanes + 1) if layout.num_lanes % n == 0]
    counts = ", ".join(f"{count:,}" for count in divisors)
    return f"{counts} {'worker' if divisors == [1] else 'workers'}"
