"""What a person sees while a job runs: workers' output with a prefix, and progress."""

from collections.abc import Sequence
from typing import Protocol

from tenfold.launcher.job.events import WorkerEvent
from tenfold.launcher.job.worker_record import WorkerRecord


class View(Protocol):
    """Shows a running job."""

    def line(self, worker: int, line: str) -> None:
        """Show a line of a worker's output."""
        ...

    def event(self, worker: int, event: WorkerEvent) -> None:
        """Show what a worker said."""
        ...

    def note(self, text: str) -> None:
        """Show what the supervisor has to say."""
        ...

    def tick(self, records: Sequence[WorkerRecord]) -> None:
        """Brings the progress up to date; called several times a second."""
        ...

    def close(self) -> None:
        """Leaves the screen in order."""
        ...
