"""Working ahead with threads: what waits for a network need not wait one after the other."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def work_ahead(
    work: Callable[[Item], Result], items: Iterable[Item], *, at_once: int
) -> Iterator[Result]:
    """Yields what `work` returns for each item, in their order; raises what it raises.

    Up to `at_once` items are under way, or done and not yet taken: memory for so many results is
    used. With one, no threads are.
    """
    if at_once <= 1:
        yield from map(work, items)
        return
    pool = ThreadPoolExecutor(at_once)
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= at_once:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
