"""Plot of scaling: speed over the number of hosts, and the shares of a step's time."""

from collections.abc import Sequence
from typing import Any

from tenfold.data.errors import UserError
from tenfold.launcher.display.plots import save_figure
from tenfold.launcher.simulation.measured import Measured, efficiency


def plot_scaling(runs: Sequence[Measured], path: str, *, title: str) -> None:
    """Save a plot of `runs`: steps per second beside perfect scaling, and the shares of a step.

    Args:
      runs: the measurements, by ascending number of hosts.
      path: the .svg or .png file to write, a path or a URL.
      title: the title of the plot.

    Raises:
      UserError: matplotlib is missing, or the file cannot be written.
      JobError: the storage could not be reached.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError("--plot needs matplotlib: pip install 'tenfold[plot]'") from error
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    figure.suptitle(title)
    speed, shares = figure.subplots(1, 2)
    _draw_speed(speed, runs)
    _draw_shares(shares, runs)
    save_figure(figure, path)


def _draw_speed(axes: Any, runs: Sequence[Measured]) -> None:
    """RecordSeed the steps per second over the number of hosts, each with its efficiency."""
    counts = [run.num_workers for run in runs]
    rates = [run.steps_per_s for run in runs]
    perfect = [rates[0] * count / counts[0] for count in counts]
    axes.plot(counts, perfect, linestyle="--", color="0.6", label="perfect")
    axes.plot(counts, rates, marker="o", label="measured")
    for run in runs:
        axes.annotate(
            f"{efficiency(runs, run):.0%}", (run.num_workers, run.steps_per_s), xytext=(0, 7),
            textcoords="offset points", ha="center",
        )  # fmt: skip
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.margins(x=0.1)
    axes.set(xlabel="hosts", ylabel="steps/s", ylim=(0, None))
    axes.legend()


def _draw_shares(axes: Any, runs: Sequence[Measured]) -> None:
    """RecordSeed the shares of a step's time as stacked bars, one per number of hosts."""
    names = [str(run.num_workers) for run in runs]
    bottom = [0.0] * len(runs)
    for label in ("compute", "input", "communication"):
        parts = [getattr(run, f"{label}_share") for run in runs]
        axes.bar(names, parts, bottom=bottom, label=label)
        bottom = [low + part for low, part in zip(bottom, parts, strict=True)]
    axes.set(xlabel="hosts", ylabel="share of a step's time", ylim=(0, 1))
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False)
