"""Progress of evaluations and predictions, implemented by the launcher's event stream."""

from typing import Protocol


class InferenceReporter(Protocol):
    """Reports the progress of one worker."""

    def enter(self, phase: str) -> None:
        """Report that `phase` begins."""

    def step(self, step: int, total_steps: int, records: int) -> None:
        """Report that a step is done.

        Args:
          step: the steps that are done.
          total_steps: the steps of this worker.
          records: records that this worker has processed.
        """
