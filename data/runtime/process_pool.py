"""A pool of processes that work through a list and end with the process that started them.

Protocol over one pipe per worker: the parent sends an item; the worker answers with any number of
``note`` messages and then one ``result`` or ``error``. A worker that finds its parent gone exits.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from tenfold.data.errors import JobError, UserError

# `multiprocessing`, which takes longer to import than small pieces of work take, is imported by
# `_start_workers` and what runs after it.
if TYPE_CHECKING:
    from multiprocessing.connection import Connection

Item = TypeVar("Item")

Result = TypeVar("Result")

# Between two checks of an idle worker for its parent.
_PARENT_CHECK_S: Final = 1.0


@dataclass(frozen=True)
class _Failure:
    """An error of a worker for the parent; `trace` is empty for UserError and JobError."""

    kind: str
    message: str
    trace: str = ""


class _ParentGone(BaseException):
    """The parent has ended."""


def run_pool(
    work: Callable[[Item, Callable[[Any], None]], Result],
    items: Sequence[Item],
    *,
    processes: int,
    on_note: Callable[[Any], None] = lambda note: None,
    inline: bool = True,
) -> Generator[tuple[Item, Result], None, None]:
    """Yield (item, result) for each item, in the order in which the results arrive.

    Args:
      work: `work(item, note)`, called in the workers; it may call `note` with picklable values.
      items: the items, picklable.
      processes: the number of workers, at most.
      on_note: called in this process with each value that `work` notes.
      inline: run `work` in this process if one worker, or one item, is all there is.

    Raises:
      UserError, JobError: `work` raised it, or a worker was lost (JobError). The other workers
        are stopped.
    """
    if inline and (processes == 1 or len(items) < 2):
        for item in items:
            yield item, work(item, on_note)
        return
    workers = _start_workers(work, min(processes, len(items)))
    try:
        yield from _deal(workers, list(items), on_note)
    finally:
        for worker in workers:
            worker.stop()


def _deal(
    workers: Sequence["_Worker"], items: list[Any], on_note: Callable[[Any], None]
) -> Generator[tuple[Any, Any], None, None]:
    from multiprocessing.connection import wait

    pending = len(items)
    items.reverse()  # `give` takes from the end
    for worker in workers:
        worker.give(items)
    by_end = {worker.end: worker for worker in workers}
    while pending:
        for ready in wait(list(by_end)):
            worker = by_end[ready]
            kind, value = worker.receive()
            if kind == "note":
                on_note(value)
            elif kind == "result":
                item = worker.item
                worker.give(items)
                pending -= 1
                yield item, value
            else:
                _raise(value)


def _raise(failure: _Failure) -> None:
    if failure.trace:
        print(failure.trace, file=sys.stderr)
    raise (UserError if failure.kind == "UserError" else JobError)(failure.message)


class _Worker:
    """The parent's side of one process of the pool."""

    def __init__(self, context: Any, work: Callable[..., Any]) -> None:
        self.end, theirs = context.Pipe()
        self.item: Any = None
        self._process = context.Process(
            target=_serve, args=(work, theirs, os.getpid()), daemon=True
        )
        self._process.start()
        theirs.close()

    def give(self, items: list[Any]) -> None:
        """Send the last of `items` and remove it; do nothing if there is none."""
        self.item = items.pop() if items else None
        if self.item is not None:
            with contextlib.suppress(BrokenPipeError):  # `receive` reports the loss
                self.end.send(self.item)

    def receive(self) -> tuple[str, Any]:
        """Return the next message.

        Raises:
          JobError: the process has ended.
        """
        try:
            message: tuple[str, Any] = self.end.recv()
            return message
        except (EOFError, OSError):
            self._process.join()
            raise JobError(
                f"a process of the pool was lost ({_describe(self._process.exitcode)}): "
                "run the same command again; a write keeps its finished shards"
            ) from None

    def stop(self) -> None:
        """End the process, by force after 10 s."""
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


def _start_workers(work: Callable[..., Any], count: int) -> list[_Worker]:
    import multiprocessing

    context = multiprocessing.get_context("fork" if can_fork() else "spawn")
    sys.stdout.flush()
    sys.stderr.flush()
    # Ctrl-C reaches the whole process group: it stays blocked in the workers until they ignore it.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return [_Worker(context, work) for _ in range(count)]
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def can_fork() -> bool:
    """Whether a fork, which is quick, is safe: there is one thread, and none of TensorFlow's."""
    one_thread = threading.active_count() == 1 and "tensorflow" not in sys.modules
    return one_thread and sys.platform.startswith("linux")


def _serve(work: Callable[..., Any], pipe: "Connection", parent: int) -> None:
    """Run the loop of a worker."""
    # The parent alone acts on Ctrl-C, which reaches the whole group. It stops a worker by SIGTERM:
    # SystemExit lets the worker remove the files that it has begun.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))

    def send(kind: str, value: Any) -> None:
        if os.getppid() != parent:
            raise _ParentGone
        pipe.send((kind, value))

    with contextlib.suppress(_ParentGone, EOFError, BrokenPipeError):
        while True:
            while not pipe.poll(_PARENT_CHECK_S):
                if os.getppid() != parent:
                    raise _ParentGone
            send(*_attempt(work, pipe.recv(), lambda note: send("note", note)))


def _attempt(work: Callable[..., Any], item: Any, note: Callable[[Any], None]) -> tuple[str, Any]:
    try:
        return "result", work(item, note)
    except (UserError, JobError) as error:
        return "error", _Failure(type(error).__name__, str(error))
    except Exception as error:  # noqa: BLE001 - reported to the parent, whatever it is
        import traceback

        message = f"{type(error).__name__}: {error}"
        return "error", _Failure("JobError", message, traceback.format_exc())
