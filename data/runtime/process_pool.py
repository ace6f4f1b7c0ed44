"""A pool of processes that work through a list and die with the process that began them."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Final, TypeVar

from tenfold.data.errors import JobError, UserError

Item = TypeVar("Item")

Result = TypeVar("Result")

# How often an idle worker looks whether its parent still lives.
_IDLE_S: Final = 1.0


@dataclass(frozen=True)
class _Failure:
    """An error of a worker on its way to the parent; `trace` is empty for foreseen ones."""

    kind: str
    message: str
    trace: str = ""


class _Lost(BaseException):
    """The parent is gone."""


def run_pool(
    work: Callable[[Item, Callable[[Any], None]], Result],
    items: Sequence[Item],
    *,
    processes: int,
    on_note: Callable[[Any], None] = lambda note: None,
    inline: bool = True,
) -> Generator[tuple[Item, Result], None, None]:
    """Yields (item, result) as results come; `work(item, note)` runs in other processes.

    What `work` passes to `note` reaches `on_note` here. With `inline`, one process, or one item,
    means this process.

    Raises:
      UserError, JobError: as `work` did, or a process was lost; the others are stopped.
    """
    if inline and (processes == 1 or len(items) < 2):
        for item in items:
            yield item, work(item, on_note)
        return
    workers = _start(work, min(processes, len(items)))
    try:
        yield from _deal(workers, list(items), on_note)
    finally:
        for worker in workers:
            worker.stop()


def _deal(
    workers: Sequence["_Worker"], items: list[Any], on_note: Callable[[Any], None]
) -> Generator[tuple[Any, Any], None, None]:
    left = len(items)
    items.reverse()
    for worker in workers:
        worker.give(items)
    by_end = {worker.end: worker for worker in workers}
    while left:
        for ready in wait(list(by_end)):
            worker = by_end[ready]
            kind, value = worker.receive()
            if kind == "note":
                on_note(value)
            elif kind == "result":
                item = worker.item
                worker.give(items)
                left -= 1
                yield item, value
            else:
                _raise(value)


def _raise(failure: _Failure) -> None:
    if failure.trace:
        print(failure.trace, file=sys.stderr)
    raise (UserError if failure.kind == "UserError" else JobError)(failure.message)


class _Worker:
    """One process of the pool, seen from the parent."""

    def __init__(self, context: Any, work: Callable[..., Any]) -> None:
        self.end, theirs = context.Pipe()
        self.item: Any = None
        self._process = context.Process(
            target=_serve, args=(work, theirs, os.getpid()), daemon=True
        )
        self._process.start()
        theirs.close()

    def give(self, items: list[Any]) -> None:
        """Sends the last of `items`, if there is one."""
        self.item = items.pop() if items else None
        if self.item is not None:
            with contextlib.suppress(BrokenPipeError):  # `receive` says that it is gone
                self.end.send(self.item)

    def receive(self) -> tuple[str, Any]:
        """Returns the next message.

        Raises:
          JobError: the process is gone.
        """
        try:
            message: tuple[str, Any] = self.end.recv()
            return message
        except (EOFError, OSError):
            self._process.join()
            raise JobError(
                f"a writing process was lost ({_describe(self._process.exitcode)}); "
                "what was finished is kept: run the same command again to go on"
            ) from None

    def stop(self) -> None:
        """Ends the process."""
        self.end.close()
        self._process.terminate()
        self._process.join(timeout=10)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _describe(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return f"signal {signal.Signals(-exit_code).name}"
    return f"exit status {exit_code}"


def _start(work: Callable[..., Any], count: int) -> list[_Worker]:
    context = multiprocessing.get_context("fork" if _can_fork() else "spawn")
    sys.stdout.flush()
    sys.stderr.flush()
    # Until they ignore Ctrl-C, which reaches the whole group, it is held back from them.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return [_Worker(context, work) for _ in range(count)]
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _can_fork() -> bool:
    """A fork is quick, and safe only while there is one thread, TensorFlow's included."""
    alone = threading.active_count() == 1 and "tensorflow" not in sys.modules
    return alone and sys.platform.startswith("linux")


def _serve(work: Callable[..., Any], pipe: Connection, parent: int) -> None:
    """The worker's loop."""
    # Ctrl-C reaches the whole group; the parent alone decides what it means. When it stops a
    # worker, that one removes what it had begun.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))

    def send(kind: str, value: Any) -> None:
        if os.getppid() != parent:
            raise _Lost
        pipe.send((kind, value))

    with contextlib.suppress(_Lost, EOFError, BrokenPipeError):
        while True:
            while not pipe.poll(_IDLE_S):
                if os.getppid() != parent:
                    raise _Lost
            send(*_attempt(work, pipe.recv(), lambda note: send("note", note)))


def _attempt(work: Callable[..., Any], item: Any, note: Callable[[Any], None]) -> tuple[str, Any]:
    try:
        return "result", work(item, note)
    except (UserError, JobError) as error:
        return "error", _Failure(type(error).__name__, str(error))
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent must hear of it
        message = f"{type(error).__name__}: {error}"
        return "error", _Failure("JobError", message, traceback.format_exc())


def usable_cpus() -> int:
    """Returns how many processors this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1


def usable_cpus() -> int:
    """Returns how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
