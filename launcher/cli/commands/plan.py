"""`tenfold plan`: the number and size of the shards, and the reasons for them."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from absl import flags

from tenfold.data.errors import UserError
from tenfold.data.planning.lane_count import counts_that_matter
from tenfold.data.planning.lanes import imbalance
from tenfold.data.planning.layout import ShardLayout
from tenfold.data.planning.plan_layout import plan_layout
from tenfold.data.runtime.scratch_folder import scratch_folder
from tenfold.data.units import format_size, plural
from tenfold.launcher.cli.flags import Arguments, FlagValues, define_size
from tenfold.launcher.cli.write_flags import (
    define_plan_flags,
    policy_from_flags,
    source_from_flags,
    source_options_from_flags,
    split_rule_from_flags,
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
    plan = plan_from_flags(fv)
    if fv.plot:
        plot_layout(plan.whole, policy_from_flags(fv), fv.plot)
        print(f"saved {fv.plot}", file=sys.stderr)
    print(json.dumps(to_json(plan), indent=1) if fv.format == "json" else to_text(plan))
    return 0


@dataclass(frozen=True)
class SourcePlan:
    """The layout of a whole data set, that of each split if there are several, and remarks."""

    whole: ShardLayout
    splits: tuple[tuple[str, ShardLayout], ...] = ()
    notes: tuple[str, ...] = ()


def plan_from_flags(fv: FlagValues) -> SourcePlan:
    """Return the plan for the flags; scans --source if it is given.

    Raises:
      UserError: a flag is wrong or missing, or the source cannot be used.
    """
    source, policy = source_from_flags(fv), policy_from_flags(fv)
    if bool(source) == (fv.dataset_size is not None):
        raise UserError("give either --source=PATH or --dataset_size=10GB")
    if not source:
        return SourcePlan(plan_layout(fv.dataset_size, fv.num_examples, policy))
    if fv.num_examples is not None:
        raise UserError("--num_examples is for --dataset_size only: a --source is counted")
    from tenfold.data.sources.open_source import open_source
    from tenfold.data.writing.splits.plan_source import plan_source

    options, rule = source_options_from_flags(fv), split_rule_from_flags(fv)
    options = replace(options, sizes_only=not rule.features)
    with scratch_folder() as scratch:
        opened = open_source(source, scratch, options)
        for note in opened.notes:
            print(note, file=sys.stderr)
        plan = plan_source(opened, policy, rule, label_feature=options.label)
    layouts = tuple((split.name, split.layout) for split in plan.splits)
    if len(layouts) == 1:
        return SourcePlan(layouts[0][1], notes=plan.notes)
    return SourcePlan(_sum_layouts(layouts), layouts, plan.notes)


def _sum_layouts(layouts: Sequence[tuple[str, ShardLayout]]) -> ShardLayout:
    """Return all splits as one layout."""
    parts = [layout for _, layout in layouts]

    def named(attribute: str) -> tuple[str, ...]:
        """Return the texts of all splits, each once, with the names of its splits."""
        of_text: dict[str, list[str]] = {}
        for name, layout in layouts:
            for text in getattr(layout, attribute):
                of_text.setdefault(text, []).append(name)
        return tuple(f"{', '.join(names)}: {text}" for text, names in of_text.items())

    return replace(
        parts[0],
        num_shards=sum(part.num_shards for part in parts),
        total_bytes=sum(part.total_bytes for part in parts),
        num_examples=sum(part.num_examples or 0 for part in parts),
        max_record_bytes=max(part.max_record_bytes for part in parts),
        reasons=named("reasons"),
        warnings=named("warnings"),
    )


_FIELDS: Final = (
    "num_shards", "num_lanes", "num_workers", "worker_counts", "shards_per_worker", "total_bytes",
    "num_examples", "shard_bytes_mean", "shard_bytes_max", "max_record_bytes",
    "records_per_shard_min", "records_per_shard_max", "reasons", "warnings",
)  # fmt: skip


def to_json(plan: SourcePlan) -> dict[str, Any]:
    """Return the plan for --format=json: the whole data set, and with several splits each."""
    document = _fields_of(plan.whole)
    document["imbalance"] = {
        str(count): round(imbalance(plan.whole.num_lanes, count), 4)
        for count in counts_that_matter(plan.whole)
    }
    if plan.splits:
        layouts = [layout for _, layout in plan.splits]
        for name, choose in (
            ("records_per_shard_min", min), ("records_per_shard_max", max),
            ("shard_bytes_max", max),
        ):  # fmt: skip
            document[name] = choose(getattr(layout, name) for layout in layouts)
        document["splits"] = [{"name": name, **_fields_of(layout)} for name, layout in plan.splits]
    return document | ({"notes": list(plan.notes)} if plan.notes else {})


def _fields_of(layout: ShardLayout) -> dict[str, Any]:
    return {name: getattr(layout, name) for name in _FIELDS}


def to_text(plan: SourcePlan) -> str:
    """Return the plan as a table in text."""
    return "\n".join(f"{name:<18} {text}" for name, text in rows_of(plan))


def rows_of(plan: SourcePlan) -> list[tuple[str, str]]:
    """Return the rows of the table: a name and a text each."""
    layout = plan.whole
    rows = [("data", _data(layout)), *(_note(note) for note in plan.notes)]
    rows += [(f"  {name}", _split(part, layout)) for name, part in plan.splits]
    rows += [
        ("shards", f"{layout.num_shards:,} of {format_size(layout.shard_bytes_mean)}"),
        ("workers", f"{layout.num_workers:,}, {plural(layout.shards_per_worker, 'shard')} each"),
        ("lanes", f"{layout.num_lanes:,}: evenly read by {_even_counts(layout)}"),
    ]
    if uneven := _uneven_counts(layout):
        rows.append(("", uneven))
    if layout.num_examples is not None and not plan.splits:
        rows.append(("records per shard", _records(layout)))
    rows += [("because", reason) for reason in layout.reasons]
    return rows + [("warning", warning) for warning in layout.warnings]


def _note(note: str) -> tuple[str, str]:
    """Return a remark as a row: ``splits: by …`` is named ``splits``."""
    name, colon, text = note.partition(": ")
    return (name, text) if colon and name == "splits" else ("splits", note)


def _split(layout: ShardLayout, whole: ShardLayout) -> str:
    share = 100 * (layout.num_examples or 0) / (whole.num_examples or 1)
    return (
        f"{plural(layout.num_examples or 0, 'example')} ({share:.1f} %) in "
        f"{plural(layout.num_shards, 'shard')} of {_records(layout)} records, "
        f"{format_size(layout.shard_bytes_mean)}"
    )


def _data(layout: ShardLayout) -> str:
    size = format_size(layout.total_bytes)
    if layout.num_examples is None:
        return size
    return f"{plural(layout.num_examples, 'example')}, {size} as records"


def _records(layout: ShardLayout) -> str:
    fewest, most = layout.records_per_shard_min, layout.records_per_shard_max
    return f"{most:,}" if fewest == most else f"{fewest:,} or {most:,}"


def _even_counts(layout: ShardLayout) -> str:
    counts = [n for n in counts_that_matter(layout) if layout.num_lanes % n == 0]
    shown = ", ".join(f"{count:,}" for count in counts)
    return f"{shown} {'worker' if counts == [1] else 'workers'}"


def _uneven_counts(layout: ShardLayout) -> str:
    """Return what other numbers of workers cost, "" if none is to be shown."""
    costs = [
        f"{count:,} workers {_percent(imbalance(layout.num_lanes, count))}"
        for count in counts_that_matter(layout)
        if layout.num_lanes % count
    ]
    return f"a step waits for the largest part: {', '.join(costs)}" if costs else ""


def _percent(longer: float) -> str:
    return f"+{100 * longer:.0f} %" if longer >= 0.005 else "under +1 %"
