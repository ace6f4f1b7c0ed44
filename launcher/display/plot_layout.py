"""A layout at a glance, as an image: which worker reads which shards, how large they are, and
what other numbers of workers would get.
"""

from typing import Any, Final

from tenfold.data.errors import UserError
from tenfold.data.planning.layout import LayoutPolicy, ShardLayout
from tenfold.data.units import format_size, plural
from tenfold.launcher.display.plots import save_figure

# Further workers and shards look like those that are shown.
MAX_WORKERS: Final = 16

MAX_SHARDS_EACH: Final = 60

_MAX_NUMBERED: Final = 20

_MAX_COUNTS: Final = 8


def plot_layout(layout: ShardLayout, policy: LayoutPolicy, path: str) -> None:
    """Saves an image of `layout`: a row of shards for each worker; where their size lies between
    the smallest and the largest that `policy` allows; and what each worker would read at every
    number of workers that divides the lanes.

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
    """Returns numbers of workers that divide the lanes: the layout's own, then the largest."""
    divisors = [n for n in range(layout.num_lanes, 0, -1) if layout.num_lanes % n == 0]
    wanted = dict.fromkeys([layout.num_workers, *layout.worker_counts, *divisors])
    return sorted(list(wanted)[:_MAX_COUNTS])


def _draw_shards(axes: Any, layout: ShardLayout, rows: int) -> None:
    """Draws a box for each shard in the row of the worker that reads it, lane by lane."""
    lanes_each = layout.num_lanes // layout.num_workers
    per_lane = layout.num_shards // layout.num_lanes
    shown = min(layout.shards_per_worker, MAX_SHARDS_EACH)
    for worker in range(rows):
        for at in range(shown):
            lane = worker * lanes_each + at // per_lane
            shard = lane + at % per_lane * layout.num_lanes
            axes.barh(worker, 0.92, left=at + 0.04, height=0.72, color=f"C{lane % 10}", alpha=0.7)
            if shown <= _MAX_NUMBERED:
                axes.text(at + 0.5, worker, str(shard), ha="center", va="center", fontsize=7)
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
        records = f", {layout.records_per_shard_max:,} records at most in each"
    hidden = []
    if rows < layout.num_workers:
        hidden.append(f"{layout.num_workers - rows:,} more workers")
    if shown < layout.shards_per_worker:
        hidden.append(f"{layout.shards_per_worker - shown:,} more shards each")
    more = f" ({' and '.join(hidden)} not shown)" if hidden else ""
    return f"shards by number, a colour for each of {layout.num_lanes} lanes{records}{more}"


def _draw_sizes(axes: Any, layout: ShardLayout, policy: LayoutPolicy) -> None:
    """Draws the range of allowed sizes and the shards' own on a logarithmic axis."""
    low, high = policy.min_shard_bytes, policy.max_shard_bytes
    mean = layout.shard_bytes_mean
    largest = max(layout.shard_bytes_max, layout.max_record_bytes)
    inside = low <= mean and largest <= high
    axes.axvspan(low, high, color="C2", alpha=0.18)
    axes.axvline(mean, color="C2" if inside else "C3", linewidth=4)
    label = f" these: {format_size(mean)} "
    side = "left" if mean * mean < low * high else "right"  # towards the middle
    axes.text(mean, 0.5, label, ha=side, va="center", fontsize=9)
    axes.set_xscale("log")
    axes.set_xlim(min(low, mean) / 4, max(high, largest) * 4)
    axes.set_ylim(0, 1)
    axes.set_xticks([low, high], [format_size(low), format_size(high)], fontsize=8)
    axes.minorticks_off()
    axes.set_yticks([])
    axes.set_xlabel("size of a shard: the wanted range, on a logarithmic axis", fontsize=8)


def _draw_counts(axes: Any, layout: ShardLayout, counts: list[int]) -> None:
    """Draws what one worker reads, as a bar, at each number of workers."""
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
    axes.set_xlabel("what one worker reads with other numbers of workers", fontsize=8)
