"""Work in the background that does not hold up the end of the process."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import lru_cache
from queue import SimpleQueue
from typing import Any, TypeVar

Result = TypeVar("Result")


class Background:
    """A few daemon threads that work off a queue; a process may end while they are at it.

    `concurrent.futures` waits for its threads when the process ends.
    """

    def __init__(self, threads: int, name: str) -> None:
        self._queue: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        for number in range(threads):
            threading.Thread(target=self._serve, name=f"{name}-{number}", daemon=True).start()

    def submit(self, work: Callable[[], Result]) -> "Future[Result]":
        """Returns what `work` will return or raise."""
        future: Future[Result] = Future()
        self._queue.put((future, work))
        return future

    def _serve(self) -> None:
        while True:
            future, work = self._queue.get()
            try:
                future.set_result(work())
            except BaseException as error:  # noqa: BLE001 - raised where the result is asked for
                future.set_exception(error)
            del future, work  # what they hold must not live until the next one comes


def once(make: Callable[[], Result]) -> Callable[[], Result]:
    """Returns a function that returns what its first call has made.

    Of several threads that come first together `lru_cache` alone lets each make one.
    """
    making, made = threading.Lock(), lru_cache(maxsize=1)(make)

    def get() -> Result:
        with making:
            return made()

    return get
