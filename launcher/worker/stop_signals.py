"""Stop signals as requests: remembered, and acted on where it is safe."""

import signal
from types import FrameType
from typing import Any, Final

_STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def ignore_stop_requests() -> None:
    """Ignore stop signals; called between fork and exec of a helper process such as ssh.

    A terminal, `timeout` and Slurm signal the whole process group. Only the launcher acts on
    that: workers must end before the helper that connects to them.
    """
    for number in _STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


class StopRequest:
    """Counts the stop signals of this process while the context is active.

    Attributes:
      count: the number of signals so far; the handler, on the main thread, may raise it between
        any two instructions.
      signal: the number of the first signal, None before.
    """

    def __init__(self) -> None:
        self.count = 0
        self.signal: int | None = None
        self._old: dict[int, Any] = {}

    def request(self, number: int) -> None:
        """Count a request that another thread has read, unless there is one already."""
        if self.count == 0:
            self.signal = self.signal or number
            self.count = 1

    def __enter__(self) -> "StopRequest":
        for number in _STOP_SIGNALS:
            self._old[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        self.count += 1
        self.signal = self.signal or number
