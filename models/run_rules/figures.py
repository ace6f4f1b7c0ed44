"""Figures of a run, as ``val_loss``: whether higher or lower is better, and the best so far. Pure.

Free of TensorFlow and numpy: planning and `--help` import it.
"""

import math
from dataclasses import dataclass, replace
from typing import Final

from tenfold.data.errors import UserError

# Words in the names of figures. A name that holds none of them, or both kinds, is not judged.
_HIGHER_IS_BETTER: Final = frozenset((
    "accuracy", "acc", "auc", "precision", "recall", "f1", "fbeta", "iou", "io", "r2", "psnr",
    "ssim", "bleu", "dice",
))  # fmt: skip
_LOWER_IS_BETTER: Final = frozenset((
    "loss", "error", "mae", "mse", "rmse", "msle", "mape", "crossentropy", "entropy",
    "perplexity", "divergence", "hinge",
))  # fmt: skip

_SIGNS: Final = {"max": 1, "min": -1}

VALIDATION_PREFIX: Final = "val_"


def direction(name: str) -> int:
    """Return 1 if a higher value of the figure `name` is better, -1 if a lower one, 0: unknown."""
    words = set(name.lower().split("_"))
    higher, lower = bool(words & _HIGHER_IS_BETTER), bool(words & _LOWER_IS_BETTER)
    return higher - lower


def is_better(name: str, value: float, than: float) -> bool:
    """Return whether `value` of the figure `name` is better than another value of it."""
    return value > than if direction(name) > 0 else value < than


@dataclass(frozen=True)
class WatchedFigure:
    """A figure that decides something: ``sign`` is 1 if higher is better, -1 if lower."""

    name: str
    sign: int

    @property
    def is_validation(self) -> bool:
        """Whether it is a figure of the validation split."""
        return self.name.startswith(VALIDATION_PREFIX)

    def words(self) -> str:
        """Return ``val_loss, lower is better``."""
        return f"{self.name}, {'higher' if self.sign > 0 else 'lower'} is better"


def watched_figure(text: str, flag: str) -> WatchedFigure:
    """Return the figure that a flag names.

    Args:
      text: the name, as ``val_loss``; ``NAME:max`` or ``NAME:min`` says what is better.
      flag: the flag, for the message.

    Raises:
      UserError: the name does not tell whether higher or lower is better.
    """
    name, _, mode = text.partition(":")
    sign = _SIGNS.get(mode, 0) if mode else direction(name)
    if not name or not sign:
        raise UserError(
            f"--{flag}={text} does not tell whether higher or lower is better: give "
            f"--{flag}={name or 'NAME'}:max or --{flag}={name or 'NAME'}:min"
        )
    return WatchedFigure(name, sign)


@dataclass(frozen=True)
class BestFigure:
    """The best value of a figure so far.

    Attributes:
      value: the value; not a number until there was a finite one.
      step: the steps of the run after which it was measured.
      since: how often the figure was measured after that without a better value.
    """

    value: float = math.nan
    step: int = 0
    since: int = 0


def observe(figure: WatchedFigure, best: BestFigure, value: float, *, step: int) -> BestFigure:
    """Return the best value after one more measurement.

    A value that is infinite or not a number is never better.

    Args:
      figure: what is measured.
      best: the best value before.
      value: the new value.
      step: the steps of the run after which it was measured.
    """
    if math.isfinite(value) and not figure.sign * value <= figure.sign * best.value:
        return BestFigure(value, step)
    return replace(best, since=best.since + 1)
