"""A loss, gradient or weight that is not finite: what is known of it, and the error. Pure."""

from dataclasses import dataclass
from typing import Final

from tenfold.data.errors import JobError

# Records that a sentence names; the event and the history hold all that are known.
_MAX_NAMED: Final = 3


@dataclass(frozen=True)
class NotFiniteFinding:
    """The first step whose loss, gradient or updated weights are not finite.

    Attributes:
      step: counted over the whole run from 1.
      epoch: its epoch, counted from 0.
      what: ``loss``, ``gradient`` or ``weights``.
      action: what the run does now, one of ON_NAN.
      records: names of records of that step, the offending ones where they are known.
      where: where the first such value appeared, in words; empty where that is not known.
      kept_step: with ``stop``, the step of the checkpoint that is kept.
      in_a_row: with ``skip``, the number of skipped steps in a row that ends the run, else 0.
    """

    step: int
    epoch: int
    what: str
    action: str
    records: tuple[str, ...] = ()
    where: str = ""
    kept_step: int | None = None
    in_a_row: int = 0

    def sentence(self) -> str:
        """Return the finding in one line, with what the run does about it."""
        verb = "are" if self.what == "weights" else "is"
        text = f"the {self.what} of step {self.step} (epoch {self.epoch + 1}) {verb} not finite"
        if self.where:
            text += f": {self.where}"
        if self.records:
            text += f"; records: {', '.join(self.records[:_MAX_NAMED])}"
            text += ", …" if len(self.records) > _MAX_NAMED else ""
        return f"{text}; {self._outcome()}"

    def _outcome(self) -> str:
        if self.action == "ignore":
            return "training goes on (--on_nan=ignore)"
        if self.action == "skip" and not self.in_a_row:
            return "its update is left out (--on_nan=skip)"
        if self.kept_step is not None:
            return f"the model of step {self.kept_step} is kept (--on_nan=stop)"
        remedy = "look at these records, lower --learning_rate, or give --clip_norm"
        if self.in_a_row:
            return f"as are the {self.in_a_row - 1} steps before it; {remedy}"
        if self.action == "stop":
            return f"there is no checkpoint before it to keep; {remedy}"
        return f"{remedy} (--on_nan=stop keeps the newest checkpoint)"


class NotFiniteError(JobError):
    """A run ended because of a value that is not finite; all workers raise it together."""

    def __init__(self, finding: NotFiniteFinding) -> None:
        super().__init__(finding.sentence())
        self.finding = finding
