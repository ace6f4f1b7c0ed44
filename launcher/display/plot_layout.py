"""Plot of a layout: the shards of each worker, their size, and other numbers of workers."""

from typing import Any, Final

from tenfold.data.errors import UserError
from tenfold.data.planning.layout import LayoutPolicy, ShardLayout
from tenfold.data.units import format_size, plural
from tenfold.launcher.display.plots import save_figure

# More workers and shards than these look like the ones shown and are left out.
MAX_WORKERS: Final = 16
MAX_SHARDS_EACH: Final = 60

_MAX_NUMBERED: Final = 20  # shards per worker: the numbers of more shards would overlap
_MAX_COUNTS: Final = 8


def plot_layout(layout: ShardLayout, policy: LayoutPolicy, path: str) -> None:
    """Save a plot of `layout` in three parts.

    A row of shards for each worker; the size of the shards within the range of `policy`; and the
    amount that each worker reads at several numbers of workers that divide the lanes.

    Args:
      layout: the layout to draw.
      policy: the policy that the layout follows, with the range of shard sizes.
      path: the .svg or .png file to write, a path or a URL.

    Raises:
      UserError: matplotlib is missing, or the file cannot be written.
      JobError: the storage could not be reached.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError("--plot needs matplotlib: pip install 'tenfold[plot]'") from error
    import matplotlib as mpl

    counts = _other_counts(layout)
    rows = min(layout.num_workers, MAX_WORKERS)
    heights = [0.34 * rows + 0.5, 0.9, 0.26 * len(counts) + 0.5]
    figure = Figure(figsize=(9, sum(heights) + 1.9), layout="constrained")
    shards, sizes, others = figure.subplots(3, 1, height_ratios=heights)
    figure.suptitle(_title(layout), fontsize=13)
    _draw_shards(shards, layout, rows)
    _draw_sizes(sizes, layout, policy)
    _draw_counts(others, layout, counts)
    metadata = {"Date": None} if path.endswith(".svg") else None
    with mpl.rc_context({"svg.hashsalt": "tenfold", "svg.fonttype": "none"}):
        save_figure(figure, path, metadata)


def _title(layout: ShardLayout) -> str:
    each = f"{layout.shards_per_worker:,} each" if layout.num_workers > 1 else "all of them"
    return (
        f"{format_size(layout.total_bytes)} as {plural(layout.num_shards, 'shard')} "
        f"of {format_size(layout.shard_bytes_mean)}: "
        f"{plural(layout.num_workers, 'worker')}, {each}"
    )


def _other_counts(layout: ShardLayout) -> list[int]:
    """Return the numbers of workers to compare, each a divisor of the number of lanes.

    The layout's own numbers come first, then the largest divisors, up to _MAX_COUNTS.
    """
    divisors = [n for n in range(layout.num_lanes, 0, -1) if layout.num_lanes % n == 0]
    wanted = dict.fromkeys([layout.num_workers, *layout.worker_counts, *divisors])
    return sorted(list(wanted)[:_MAX_COUNTS])


def _draw_shards(axes: Any, layout: ShardLayout, rows: int) -> None:
    """RecordSeed a box for each shard in the row of its worker, lane by lane."""
    lanes_each = layout.num_lanes // layout.num_workers
    per_lane = layout.num_shards // layout.num_lanes
    shown = min(layout.shards_per_worker, MAX_SHARDS_EACH)
    for worker in range(rows):
        for column in range(shown):
            lane = worker * lanes_each + column // per_lane
            shard = lane + column % per_lane * layout.num_lanes
            colour = f"C{lane % 10}"
            axes.barh(worker, 0.92, left=column + 0.04, height=0.72, color=colour, alpha=0.7)
            if shown <= _MAX_NUMBERED:
                axes.text(column + 0.5, worker, str(shard), ha="center", va="center", fontsize=7)
    axes.set_xlim(0, shown)
    axes.set_ylim(rows - 0.45, -0.55)
    labels = [_worker_label(worker, lanes_each) for worker in range(rows)]
    axes.set_yticks(range(rows), labels, fontsize=8)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.set_xlabel(_caption(layout, rows, shown), fontsize=8)
    axes.spines[:].set_visible(False)


def _worker_label(worker: int, lanes_each: int) -> str:
    first, last = worker * lanes_each, (worker + 1) * lanes_each - 1
    lanes = f"lane {first}" if first == last else f"lanes {first}–{last}"
    return f"worker {worker}: {lanes}"


def _caption(layout: ShardLayout, rows: int, shown: int) -> str:
    records = ""
    if layout.records_per_shard_max is not None:
        records = f", at most {layout.records_per_shard_max:,} records per shard"
    hidden = []
    if rows < layout.num_workers:
        hidden.append(f"{layout.num_workers - rows:,} more workers")
    if shown < layout.shards_per_worker:
        hidden.append(f"{layout.shards_per_worker - shown:,} more shards each")
    more = f" ({' and '.join(hidden)} not shown)" if hidden else ""
    return f"shard numbers, one colour per lane ({layout.num_lanes} lanes){records}{more}"


def _draw_sizes(axes: Any, layout: ShardLayout, policy: LayoutPolicy) -> None:
    """RecordSeed the range of wanted sizes and the size of the shards on a logarithmic axis."""
    low, high = policy.min_shard_bytes, policy.max_shard_bytes
    mean = layout.shard_bytes_mean
    largest = max(layout.shard_bytes_max, layout.max_record_bytes)
    inside = low <= mean and largest <= high
    axes.axvspan(low, high, color="C2", alpha=0.18)
    axes.axvline(mean, color="C2" if inside else "C3", linewidth=4)
    label = f" mean shard: {format_size(mean)} "
    side = "left" if mean * mean < low * high else "right"  # the text runs towards the middle
    axes.text(mean, 0.5, label, ha=side, va="center", fontsize=9)
    axes.set_xscale("log")
    axes.set_xlim(min(low, mean) / 4, max(high, largest) * 4)
    axes.set_ylim(0, 1)
    axes.set_xticks([low, high], [format_size(low), format_size(high)], fontsize=8)
    axes.minorticks_off()
    axes.set_yticks([])
    axes.set_xlabel(
        "shard size (logarithmic axis); the shaded range is --min_shard_size to --max_shard_size",
        fontsize=8,
    )


def _draw_counts(axes: Any, layout: ShardLayout, counts: list[int]) -> None:
    """RecordSeed a bar for each number of workers: the share of the data that one worker reads."""
    for row, count in enumerate(counts):
        chosen = count == layout.num_workers
        axes.barh(row, 1 / count, height=0.6, color="C0" if chosen else "0.75")
        text = (
            f"{layout.num_shards // count:,} shards, {format_size(layout.total_bytes / count)}"
            f" for each of {plural(count, 'worker')}"
        )
        inside = 1 / count > 0.6
        axes.text(
            0.01 if inside else 1 / count + 0.01, row, text, va="center", fontsize=8,
            color="white" if inside and chosen else "black",
        )  # fmt: skip
    axes.set_xlim(0, 1)
    axes.set_ylim(len(counts) - 0.5, -0.5)
    axes.set_yticks(range(len(counts)), [str(count) for count in counts], fontsize=8)
    axes.set_ylabel("workers", fontsize=8)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("share of the data that one worker reads, by number of workers", fontsize=8)
