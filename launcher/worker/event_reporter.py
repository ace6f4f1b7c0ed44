"""The trainer's reporter: sends its progress as events, and lets injected faults strike."""

from dataclasses import asdict

from tenfold.launcher.job.events import (
    CheckpointSaved,
    Epoch,
    EventWriter,
    NotFinite,
    Remark,
    Resumed,
    Step,
)
from tenfold.launcher.job.faults import WorkerFaults
from tenfold.models.metrics_line import EpochMetrics, StepMetrics
from tenfold.models.training.reporting.not_finite import NotFiniteFinding


class EventReporter:
    """Implements `models.training.reporting.reporter.Reporter` on this worker's event stream."""

    def __init__(self, events: EventWriter, faults: WorkerFaults) -> None:
        self._events = events
        self._faults = faults

    def enter(self, phase: str) -> None:
        """Report that `phase` begins."""
        self._events.enter(phase)

    def resumed(self, *, epoch: int, step: int) -> None:
        """Report that training continues from a checkpoint at `step` of the whole run."""
        self._events.send(Resumed(step=step, epoch=epoch))

    def step(self, metrics: StepMetrics, *, total_steps: int) -> None:
        """Report a step, then carry out the faults that are due at it."""
        self._events.send(
            Step(
                step=metrics.step,
                epoch=metrics.epoch,
                total_steps=total_steps,
                loss=metrics.loss,
                records_per_s=metrics.records_per_s,
                wait_share=metrics.wait_share,
                exchange_share=metrics.exchange_share,
            )
        )
        self._faults.strike(metrics.step)
        self._faults.block_until_killed(metrics.step)

    def epoch(self, metrics: EpochMetrics, *, epochs: int, sentences: tuple[str, ...]) -> None:
        """Report a finished epoch of `epochs`; `sentences` describe it for a person."""
        self._events.send(
            Epoch(
                epoch=metrics.epoch,
                epochs=epochs,
                loss=metrics.loss,
                metrics=metrics.metrics,
                records_per_s=metrics.records_per_s,
                sentences=sentences,
            )
        )

    def checkpoint(self, path: str, *, epoch: int, step: int) -> None:
        """Report that a whole checkpoint exists at `path`."""
        self._events.send(CheckpointSaved(path, epoch=epoch, step=step))

    def not_finite(self, finding: NotFiniteFinding) -> None:
        """Report that the loss, a gradient or a weight is not finite."""
        self._events.send(NotFinite(**asdict(finding), sentence=finding.sentence()))

    def remark(self, text: str) -> None:
        """Report something that a person should know, in one line, the same on all workers."""
        self._events.send(Remark(text))
