"""Watch for hosts with which a running job could grow."""

import threading
from collections.abc import Callable


class HostWatch:
    """A context in which a thread looks at the hosts that the job misses.

    The thread alone looks, and the supervisor's main thread reads its finding. A look starts a
    process on each missing host and none on the hosts that run workers, so that steps are not
    slowed down.
    """

    def __init__(
        self,
        look: Callable[[Callable[[], bool]], str],
        *,
        first_in_s: float | None,
        interval_s: float,
    ) -> None:
        """Prepare to watch.

        Args:
          look: called by the thread with a function that tells whether to give up; returns how
            the job could grow, "" if it could not.
          first_in_s: seconds until the first look, None if there is to be none.
          interval_s: seconds between two looks.
        """
        self._look = look
        self.first_in_s = first_in_s
        self._interval_s = interval_s
        self._closed = threading.Event()
        self._growth = ""
        self._thread = threading.Thread(target=self._run, name="host-watch", daemon=True)

    @property
    def is_watching(self) -> bool:
        """Whether there is anything to look for."""
        return self.first_in_s is not None

    def find_growth(self) -> str:
        """Return how the job could grow, in words; "" if it could not at the last look."""
        return self._growth

    def __enter__(self) -> "HostWatch":
        if self.is_watching:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End the thread: the next start looks at the same hosts from the main thread."""
        self._closed.set()
        if self.is_watching:
            self._thread.join()

    def _run(self) -> None:
        wait_s = max(self.first_in_s or 0.0, self._interval_s)
        while not self._closed.wait(wait_s):
            self._growth = self._look(self._closed.is_set)
            wait_s = self._interval_s
