"""The View protocol: how a running job is shown. Implemented by plain lines and a live table."""

from collections.abc import Sequence
from typing import Protocol

from tenfold.launcher.job.events import WorkerEvent
from tenfold.launcher.job.history.history_line import Resized
from tenfold.launcher.job.worker_record import WorkerRecord


class View(Protocol):
    """Shows a running job."""

    def line(self, worker: int, line: str) -> None:
        """Show a line of a worker's output."""
        ...

    def event(self, worker: int, event: WorkerEvent) -> None:
        """Show an event that a worker reported."""
        ...

    def note(self, text: str) -> None:
        """Show a message of the supervisor."""
        ...

    def resized(self, change: Resized) -> None:
        """Show that the workers are going to start on other hosts."""
        ...

    def wait(self, activity: str) -> None:
        """Show what the launcher waits for, with a timer; called several times a second."""
        ...

    def tick(self, records: Sequence[WorkerRecord]) -> None:
        """Show the progress of all workers; called several times a second."""
        ...

    def close(self) -> None:
        """Stop showing the job and restore the terminal."""
        ...
