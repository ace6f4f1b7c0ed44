"""Working ahead with threads: what waits for a network need not wait one after the other.

Work in the background that does not hold up the end of the process.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from queue import SimpleQueue
from typing import Any, TypeVar

Item = TypeVar("Item")

Result = TypeVar("Result")


def prefetch_map(
    work: Callable[[Item], Result], items: Iterable[Item], *, max_in_flight: int
) -> Iterator[Result]:
    """Yields what `work` returns for each item, in their order; raises what it raises.

    Up to `max_in_flight` items are being worked on or wait to be taken, which bounds memory. With 1
    the work runs on the caller's thread.
    """
    if max_in_flight <= 1:
        yield from map(work, items)
        return
    pool = ThreadPoolExecutor(max_in_flight)
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= max_in_flight:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


class DaemonExecutor:
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


def build_once(make: Callable[[], Result]) -> Callable[[], Result]:
    """Returns a function that returns what its first call has made.

    Of several threads that come first together `lru_cache` alone lets each make one.
    """
    making, made = threading.Lock(), lru_cache(maxsize=1)(make)

    def get() -> Result:
        with making:
            return made()

    return get
