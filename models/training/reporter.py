"""How the trainer tells what it is doing; the launcher's worker entry listens."""

from typing import Any, Protocol


class Reporter(Protocol):
    """What `launcher.events.EventWriter` does: phases, and things said in them."""

    def enter(self, phase: str, **data: Any) -> None:
        """Says that `phase` begins."""

    def send(self, kind: str, **data: Any) -> None:
        """Says one thing of the current phase."""


class Silence:
    """A reporter that says nothing."""

    def enter(self, phase: str, **data: Any) -> None:
        """Does nothing."""

    def send(self, kind: str, **data: Any) -> None:
        """Does nothing."""
