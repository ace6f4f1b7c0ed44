"""Being asked to stop: remembered, and acted upon where it is safe."""

import signal
from types import FrameType
from typing import Any, Final

_ASKING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def ignore_stop_requests() -> None:
    """Between fork and exec of a helper: what asks the whole process group to stop (a terminal,
    `timeout`, Slurm) is the launcher's business. Workers end first, and need the helper to.
    """
    for number in _ASKING:
        signal.signal(number, signal.SIG_IGN)


class StopRequest:
    """Remembers the signals that ask this process to stop, while it is a context."""

    def __init__(self) -> None:
        self.count = 0
        self.signal: int | None = None
        self._old: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        for number in _ASKING:
            self._old[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        self.count += 1
        self.signal = self.signal or number
