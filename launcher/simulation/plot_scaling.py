"""Scaling at a glance, as an image: speed over the number of hosts, and where the time goes."""

from collections.abc import Sequence

from tenfold.data.errors import UserError
from tenfold.launcher.display.plots import save_figure
from tenfold.launcher.simulation.measured import Measured, efficiency


def plot_scaling(found: Sequence[Measured], path: str, *, title: str) -> None:
    """Saves an image of the runs: steps per second against perfect scaling, and the shares of
    a step's time.

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
    counts = [measured.num_workers for measured in found]
    names = [str(count) for count in counts]
    rates = [measured.steps_per_s for measured in found]
    perfect = [rates[0] * count / counts[0] for count in counts]
    speed.plot(counts, perfect, linestyle="--", color="0.6", label="perfect")
    speed.plot(counts, rates, marker="o", label="measured")
    for count, rate, measured in zip(counts, rates, found, strict=True):
        speed.annotate(f"{efficiency(found, measured):.0%}", (count, rate), xytext=(0, 7),
                       textcoords="offset points", ha="center")  # fmt: skip
    speed.set_xticks(counts, names)
    speed.margins(x=0.1)
    speed.set(xlabel="hosts", ylabel="steps/s", ylim=(0, None))
    speed.legend()
    bottom = [0.0] * len(found)
    for label in ("compute", "input", "communication"):
        parts = [getattr(measured, f"{label}_share") for measured in found]
        shares.bar(names, parts, bottom=bottom, label=label)
        bottom = [low + part for low, part in zip(bottom, parts, strict=True)]
    shares.set(xlabel="hosts", ylabel="share of a step's time", ylim=(0, 1))
    shares.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False)
    save_figure(figure, path)
