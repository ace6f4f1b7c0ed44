"""The best value so far of a run, and which of its figures tells. Pure."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tenfold.models.run_rules.figures import VALIDATION_PREFIX, direction, is_better


@dataclass(frozen=True)
class BestValue:
    """The best value of the figure `name`, and its epoch, counted from 0."""

    name: str
    value: float
    epoch: int

    def text(self) -> str:
        """Return the value as people read it, epochs counted from 1."""
        return f"best {self.name} {self.value:.4g} (epoch {self.epoch + 1})"


def telling_figure(names: Iterable[str]) -> str | None:
    """Return the name of the figure that best tells how good the model is, None if none does.

    A figure of the validation split comes before one of training, a metric before the loss, and
    else the first.
    """
    judged = [name for name in names if direction(name)]
    return min(judged, key=_rank, default=None)


def _rank(name: str) -> tuple[bool, bool]:
    return not name.startswith(VALIDATION_PREFIX), name.removeprefix(VALIDATION_PREFIX) == "loss"


def best_value(epochs: Iterable[tuple[int, Mapping[str, float]]]) -> BestValue | None:
    """Return the best value of the telling figure; of equal values, the first.

    Args:
      epochs: pairs of an epoch, counted from 0, and its figures by name, the loss included.
        Values that are infinite or not a number do not count.
    """
    rows = list(epochs)
    name = telling_figure(dict.fromkeys(name for _, figures in rows for name in figures))
    if name is None:
        return None
    best: BestValue | None = None
    for epoch, figures in rows:
        value = figures.get(name, math.nan)
        if math.isfinite(value) and (best is None or is_better(name, value, best.value)):
            best = BestValue(name, value, epoch)
    return best
