"""Whether a run still learns, overfits, has stopped improving or got worse. Pure."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

from tenfold.launcher.report_page.series import show
from tenfold.models.metrics_line import EpochMetrics

MIN_EPOCHS: Final = 3
# A loss that fell by a smaller share within the last quarter of the epochs has stopped falling.
FALLING_SHARE: Final = 0.01
# A loss has risen if the last quarter of the epochs since its lowest is above that by this share,
# PATIENCE epochs or more have passed, and later epochs are mostly higher: noise around a lucky
# epoch is no trend.
RISEN_SHARE: Final = 0.05
PATIENCE: Final = 2
MIN_TREND: Final = 0.4
MAX_COMPARED: Final = 200  # epochs that are compared pair by pair


@dataclass(frozen=True)
class Learning:
    """How a run learns.

    Attributes:
      kind: ``unknown``, ``learning``, ``overfitting``, ``flat`` or ``worse``.
      text: the kind and the figures that show it, for a person.
      best_epoch: the epoch of the lowest loss, counted from 0.
    """

    kind: str
    text: str
    best_epoch: int = 0


def judge_learning(epochs: Sequence[EpochMetrics]) -> Learning:
    """Return how a run learns, by its validation loss, or its training loss if there is none.

    Epochs whose loss is not finite are left out.
    """
    name = "val_loss" if any("val_loss" in line.metrics for line in epochs) else "loss"
    rows = [(line, _loss(line, name)) for line in epochs if math.isfinite(_loss(line, name))]
    if len(rows) < MIN_EPOCHS:
        few = "1 epoch is" if len(rows) == 1 else f"{len(rows)} epochs are"
        return Learning(
            "unknown", f"{few} too few to tell" if rows else "no epoch with a loss yet"
        )
    lines, values = [row[0] for row in rows], [row[1] for row in rows]
    best = min(range(len(values)), key=lambda index: values[index])
    since = f"epoch {lines[best].epoch + 1}"
    change = f"{name} rose from {show(values[best])} ({since}) to {show(values[-1])}"
    if _has_risen(values[best:]):
        if name == "loss":
            return Learning("worse", f"getting worse: {change}", lines[best].epoch)
        if lines[-1].loss < lines[best].loss:
            fell = f"the training loss fell to {show(lines[-1].loss)}"
            text = f"overfitting since {since}: {change}, while {fell}"
            return Learning("overfitting", text, lines[best].epoch)
        return Learning("worse", f"getting worse: {change}", lines[best].epoch)
    recent = max(1, len(values) // 4)
    before, now = min(values[:-recent]), min(values[-recent:])
    if before - now > FALLING_SHARE * abs(before):
        text = f"still learning: {name} fell from {show(before)} to {show(now)} in the last "
        text += "epoch" if recent == 1 else f"{recent} epochs"
        return Learning("learning", text, lines[best].epoch)
    text = f"no longer improving: the lowest {name} is {show(values[best])} ({since})"
    return Learning("flat", text, lines[best].epoch)


def _loss(line: EpochMetrics, name: str) -> float:
    return line.loss if name == "loss" else line.metrics.get(name, math.nan)


def _has_risen(since_best: Sequence[float]) -> bool:
    if len(since_best) - 1 < PATIENCE:
        return False
    best, recent = since_best[0], since_best[-max(PATIENCE, len(since_best) // 4) :]
    rise = statistics.median(recent) - best
    return rise > RISEN_SHARE * abs(best) and trend(since_best) >= MIN_TREND


def trend(values: Sequence[float]) -> float:
    """Return how steadily the values rise: 1 always, -1 always fall, about 0 for noise.

    This is Kendall's rank correlation with time (tau a); of many values, every k-th counts.
    """
    few = values[:: -(-len(values) // MAX_COMPARED) or 1]
    pairs = [(after > before) - (after < before) for before, after in combinations(few, 2)]
    return statistics.fmean(pairs) if pairs else 0.0
