"""A layout at a glance, as a picture: which worker reads which shards, and how large they are."""

from pathlib import Path
from typing import Any, Final

from tenfold.data.errors import UserError
from tenfold.data.sizes import format_size, plural
from tenfold.data.specs import MB, LayoutPolicy, ShardLayout

SUFFIXES: Final = (".svg", ".png")
# More boxes than this are too small to tell apart.
_MOST_BOXES: Final = 2000


def check_plot_path(path: str) -> None:
    """Checks that a picture can be made at `path`.

    Raises:
      UserError: its suffix is of no known kind, or its folder does not exist.
    """
    if not path.endswith(SUFFIXES):
        raise UserError(f"--plot={path}: the file must end in {' or '.join(SUFFIXES)}")
    if not Path(path).absolute().parent.is_dir():
        raise UserError(f"--plot={path}: there is no folder '{Path(path).parent}'")


def plot_layout(layout: ShardLayout, policy: LayoutPolicy, path: str) -> None:
    """Saves a picture of `layout`: a row of shards for each worker, and where their size lies
    between the smallest and the largest that the policy allows.

    Raises:
      UserError: matplotlib is missing, or there are too many shards to show.
    """
    if layout.num_shards > _MOST_BOXES:
        raise UserError(f"--plot shows up to {_MOST_BOXES:,} shards, not {layout.num_shards:,}")
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise UserError("--plot needs matplotlib: pip install 'tenfold[plot]'") from error
    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "tenfold"
    from matplotlib import pyplot

    rows = layout.num_workers
    figure, (top, bottom) = pyplot.subplots(
        2, 1, figsize=(9, 2.6 + 0.35 * rows), height_ratios=[0.35 * rows + 0.6, 1]
    )
    _draw_shards(top, layout)
    _draw_sizes(bottom, layout, policy)
    figure.suptitle(
        f"{plural(layout.num_shards, 'shard')} of {format_size(layout.shard_bytes_mean)} "
        f"for {plural(rows, 'worker')}",
        fontsize=13,
    )
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None} if path.endswith(".svg") else None)
    pyplot.close(figure)


def _draw_shards(axes: Any, layout: ShardLayout) -> None:
    """Draws a box for each shard, in the row of the worker that reads it, numbered if they fit."""
    from matplotlib.patches import Rectangle

    lanes_each = layout.num_lanes // layout.num_workers
    used = [0] * layout.num_workers
    for shard in range(layout.num_shards):
        lane = shard % layout.num_lanes
        worker = lane // lanes_each
        at = used[worker]
        used[worker] += 1
        axes.add_patch(
            Rectangle((at + 0.05, worker + 0.1), 0.9, 0.8, facecolor=f"C{lane % 10}", alpha=0.75)
        )
        if layout.shards_per_worker <= 25:
            axes.text(at + 0.5, worker + 0.5, str(shard), ha="center", va="center", fontsize=7)
    axes.set_xlim(0, layout.shards_per_worker)
    axes.set_ylim(layout.num_workers, 0)
    axes.set_yticks([worker + 0.5 for worker in range(layout.num_workers)])
    axes.set_yticklabels([f"worker {worker}" for worker in range(layout.num_workers)], fontsize=8)
    axes.set_xticks([])
    axes.set_xlabel(f"shards by number, coloured by lane ({layout.num_lanes} lanes)", fontsize=8)
    axes.spines[:].set_visible(False)


def _draw_sizes(axes: Any, layout: ShardLayout, policy: LayoutPolicy) -> None:
    """Draws the range of allowed sizes and the shards' own, in MB on a logarithmic axis."""
    low, high = policy.min_shard_bytes / MB, policy.max_shard_bytes / MB
    mean, largest = layout.shard_bytes_mean / MB, layout.shard_bytes_max / MB
    allowed = f"{format_size(policy.min_shard_bytes)} to {format_size(policy.max_shard_bytes)}"
    axes.axvspan(low, high, color="C2", alpha=0.2, label=f"wanted: {allowed}")
    inside = low <= mean and largest <= high
    axes.axvline(
        mean, color="C2" if inside else "C3", linewidth=3,
        label=f"shards: {format_size(layout.shard_bytes_mean)}",
    )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlim(min(low, mean) / 3, max(high, largest) * 3)
    axes.set_yticks([])
    axes.set_xlabel("MB a shard", fontsize=8)
    axes.legend(loc="upper left", fontsize=7, ncols=2)
