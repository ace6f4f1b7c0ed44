"""When a training ends before its last epoch: the rules, and the decision by them. Pure.

Free of TensorFlow and numpy: planning and `--help` import it.
"""

import math
from dataclasses import dataclass
from typing import Final

from tenfold.data.errors import UserError
from tenfold.data.units import format_duration, plural
from tenfold.models.run_rules.figures import BestFigure, WatchedFigure, watched_figure


@dataclass(frozen=True)
class StopRules:
    """What ends a training besides its number of epochs; zeros for no rule.

    Attributes:
      patience: measurements of `monitor` in a row without a better value.
      monitor: the figure, as ``val_loss`` or ``val_score:max``.
      max_steps: steps of the whole run, over all launches into its run directory.
      max_time_s: seconds of the whole run, from the start of the workers on; those that restarts
        lose do not count.
    """

    patience: int = 0
    monitor: str = "val_loss"
    max_steps: int = 0
    max_time_s: float = 0.0

    def __post_init__(self) -> None:
        for name in ("patience", "max_steps", "max_time_s"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"{name} is {getattr(self, name)}: it must be at least 0")
        watched_figure(self.monitor, "monitor")

    @property
    def figure(self) -> WatchedFigure | None:
        """The figure that `patience` is about; None without patience."""
        return watched_figure(self.monitor, "monitor") if self.patience else None

    def steps_left(self, steps_done: int) -> float:
        """Return the steps until `max_steps`, at least 0; infinite without this rule."""
        return max(0, self.max_steps - steps_done) if self.max_steps else math.inf

    def is_over_time(self, seconds: float) -> bool:
        """Return whether a run that has lasted `seconds` has lasted long enough."""
        return 0 < self.max_time_s <= seconds

    def reason(self, *, steps_done: int, over_time: bool, best: BestFigure) -> str:
        """Return why the training ends now, for a person; empty if it goes on.

        Args:
          steps_done: steps of the whole run.
          over_time: whether `is_over_time` was true on any worker.
          best: the best value of `monitor`.
        """
        if self.max_steps and steps_done >= self.max_steps:
            return f"--max_steps={self.max_steps}"
        if over_time:
            return f"--max_time={format_duration(self.max_time_s).replace(' ', '')}"
        if self.patience and best.since >= self.patience:
            name = watched_figure(self.monitor, "monitor").name
            evaluations = plural(best.since, "evaluation")
            return (
                f"--patience={self.patience}: no better {name} in {evaluations} than "
                f"{best.value:.4g} at step {best.step:,}"
            )
        return ""


NO_RULES: Final = StopRules()
