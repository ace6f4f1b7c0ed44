"""Guards around TensorFlow: its calls into Python at the exit, and its start-up messages.

If the interpreter exits while a tf.data iterator is alive, TensorFlow deletes the iterator at a
time at which no other thread can take the interpreter lock: the deletion then waits forever for a
Python callback in progress. Therefore `guarded_callback` refuses new callbacks at exit and waits
for those in progress. As nobody takes batches any more, a pipeline comes to rest once its few
buffers are full.
"""

import atexit
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

# A pipeline without a callback for this long is at rest.
_REST_S: Final = 0.1
# The exit waits at most this long for a pipeline to come to rest.
_MAX_WAIT_S: Final = 5.0
# The error of a refused callback. TensorFlow logs it, with a traceback, after the program's own
# last words: readers of logs must not take it for the cause of the exit.
EXIT_ERROR: Final = "the process is about to end"


class CallbackGate:
    """Counts callbacks in progress, on any thread; `settle` closes the gate."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # protects the count and the time of the last return
        self._in_progress = 0
        self._last = 0.0
        self._closed = False

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return `function` as a guarded callback; usable as a decorator."""

        def guarded(*arguments: Any) -> Any:
            # Counted before the gate is looked at: `settle` either sees the call or refuses it.
            with self._lock:
                self._in_progress += 1
            try:
                if self._closed:
                    raise RuntimeError(EXIT_ERROR)
                return function(*arguments)
            finally:
                with self._lock:
                    self._in_progress -= 1
                    self._last = time.monotonic()

        return guarded

    def settle(self) -> None:
        """Refuse callbacks from now on, and wait until none has been in progress for a while."""
        if self._last == 0.0 and not self._in_progress:
            return
        self._closed = True
        self._last = begun = time.monotonic()
        while time.monotonic() < begun + _MAX_WAIT_S:
            if not self._in_progress and time.monotonic() > self._last + _REST_S:
                return
            time.sleep(_REST_S / 10)


guarded_callback: Final = CallbackGate()

atexit.register(guarded_callback.settle)


@contextmanager
def silence_native_startup() -> Iterator[None]:
    """Discard the standard error of native code in the block; exceptions still propagate.

    TensorFlow writes its start-up messages before it reads its own log settings, so only the
    file descriptor can silence them.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    saved = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


def silence_native_stderr() -> None:
    """Drop what is written to this process's standard error from C++; Python's goes on.

    For a worker that has finished and is about to leave: TensorFlow logs the peers that leave
    before it as crashed tasks.
    """
    sys.stderr.flush()
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, encoding="utf-8", errors="replace")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
