"""Progress reporting as the trainer needs it; the launcher's worker implements it."""

from typing import Protocol

from tenfold.models.metrics_line import EpochMetrics, StepMetrics
from tenfold.models.training.reporting.not_finite import NotFiniteFinding


class Reporter(Protocol):
    """Receives the progress of one worker's training, on the thread that trains."""

    def enter(self, phase: str) -> None:
        """Report that `phase` begins."""
        ...

    def resumed(self, *, epoch: int, step: int) -> None:
        """Report that training continues from a checkpoint at `step` of the whole run."""
        ...

    def step(self, metrics: StepMetrics, *, total_steps: int) -> None:
        """Report the last step of a call of steps."""
        ...

    def epoch(self, metrics: EpochMetrics, *, epochs: int, sentences: tuple[str, ...]) -> None:
        """Report a finished epoch of `epochs`; `sentences` describe it for a person."""
        ...

    def checkpoint(self, path: str, *, epoch: int, step: int) -> None:
        """Report that a whole checkpoint exists at `path`."""
        ...

    def not_finite(self, finding: NotFiniteFinding) -> None:
        """Report that the loss, a gradient or a weight is not finite."""
        ...

    def remark(self, text: str) -> None:
        """Report something that a person should know, in one line, the same on all workers."""
        ...


class NullReporter:
    """A reporter that drops everything."""

    def enter(self, phase: str) -> None:
        """Do nothing."""

    def resumed(self, *, epoch: int, step: int) -> None:
        """Do nothing."""

    def step(self, metrics: StepMetrics, *, total_steps: int) -> None:
        """Do nothing."""

    def epoch(self, metrics: EpochMetrics, *, epochs: int, sentences: tuple[str, ...]) -> None:
        """Do nothing."""

    def checkpoint(self, path: str, *, epoch: int, step: int) -> None:
        """Do nothing."""

    def not_finite(self, finding: NotFiniteFinding) -> None:
        """Do nothing."""

    def remark(self, text: str) -> None:
        """Do nothing."""
