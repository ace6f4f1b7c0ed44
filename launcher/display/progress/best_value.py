"""The best value so far of a run, and which of its figures tells. Pure."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

# Words in the names of figures. A name that holds none of them, or both kinds, is not judged.
_HIGHER_IS_BETTER: Final = frozenset((
    "accuracy", "acc", "auc", "precision", "recall", "f1", "fbeta", "iou", "io", "r2", "psnr",
    "ssim", "bleu", "dice",
))  # fmt: skip
_LOWER_IS_BETTER: Final = frozenset((
    "loss", "error", "mae", "mse", "rmse", "msle", "mape", "crossentropy", "entropy",
    "perplexity", "divergence", "hinge",
))  # fmt: skip


@dataclass(frozen=True)
class BestValue:
    """The best value of the figure `name`, and its epoch, counted from 0."""

    name: str
    value: float
    epoch: int

    def text(self) -> str:
        """Return the value as people read it, epochs counted from 1."""
        return f"best {self.name} {self.value:.4g} (epoch {self.epoch + 1})"


def direction(name: str) -> int:
    """Return 1 if a higher value of the figure `name` is better, -1 if a lower one, 0: unknown."""
    words = set(name.lower().split("_"))
    higher, lower = bool(words & _HIGHER_IS_BETTER), bool(words & _LOWER_IS_BETTER)
    return higher - lower


def is_better(name: str, value: float, than: float) -> bool:
    """Return whether `value` of the figure `name` is better than another value of it."""
    return value > than if direction(name) > 0 else value < than


def telling_figure(names: Iterable[str]) -> str | None:
    """Return the name of the figure that best tells how good the model is, None if none does.

    A figure of the validation split comes before one of training, a metric before the loss, and
    else the first.
    """
    judged = [name for name in names if direction(name)]
    return min(judged, key=_rank, default=None)


def _rank(name: str) -> tuple[bool, bool]:
    return not name.startswith("val_"), name.removeprefix("val_") == "loss"


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
