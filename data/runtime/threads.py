"""Threads for waiting on networks: prefetching in order, and work that never delays an exit."""

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
    """Yield `work(item)` for each item, in order; an exception of `work` is raised in its place.

    Args:
      work: called on threads of a pool; on the caller's thread if `max_in_flight` is 1.
      items: read on the caller's thread, as far ahead as `max_in_flight` allows.
      max_in_flight: items in work or finished but not yet taken, at most: it bounds memory.
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
    """A few daemon threads that work through a queue.

    Unlike those of `concurrent.futures`, which the interpreter waits for at its exit, the threads
    may be abandoned in the middle of their work.
    """

    def __init__(self, threads: int, name: str) -> None:
        self._queue: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        for number in range(threads):
            threading.Thread(target=self._serve, name=f"{name}-{number}", daemon=True).start()

    def submit(self, work: Callable[[], Result]) -> "Future[Result]":
        """Queue `work`; return the future of its result or exception."""
        future: Future[Result] = Future()
        self._queue.put((future, work))
        return future

    def _serve(self) -> None:
        while True:
            future, work = self._queue.get()
            try:
                future.set_result(work())
            except BaseException as error:  # noqa: BLE001 - raised by `future.result()`
                future.set_exception(error)
            del future, work  # else they would keep their memory until the next item arrives


def build_once(make: Callable[[], Result]) -> Callable[[], Result]:
    """Return a function whose first call builds a value with `make`; later calls return it.

    `lru_cache` alone would let threads that race on the first call each build one.
    """
    lock, cached = threading.Lock(), lru_cache(maxsize=1)(make)

    def get() -> Result:
        with lock:
            return cached()

    return get
