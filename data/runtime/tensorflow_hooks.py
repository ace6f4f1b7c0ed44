"""Calls from TensorFlow's threads into Python, and the end of the process.

When Python ends while an iterator still lives, the iterator is deleted at a time at which no
other thread gets the interpreter any more: its deletion then waits for a call that can never
return. So before the end new calls are refused, and those under way are waited for. As nobody
takes batches any more, a pipeline comes to rest once its few places for them are filled.

Loading TensorFlow without the messages that it writes past Python's own streams.
"""

import atexit
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

# A pipeline that has not called for this long is at rest; at most so long is waited for that.
_REST_S: Final = 0.1

_PATIENCE_S: Final = 5.0


class CallbackGate:
    """Counts the calls under way; `settle` refuses further ones and waits until all is at rest."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way = 0
        self._last = 0.0
        self._ending = False

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Returns `function`, counted."""

        def counted(*arguments: Any) -> Any:
            with self._lock:
                self._under_way += 1
            try:
                if self._ending:
                    raise RuntimeError("the process is about to end")
                return function(*arguments)
            finally:
                with self._lock:
                    self._under_way -= 1
                    self._last = time.monotonic()

        return counted

    def settle(self) -> None:
        """Refuses calls from now on, and returns when none has come for a while."""
        if self._last == 0.0 and not self._under_way:
            return
        self._ending = True
        self._last = begun = time.monotonic()
        while time.monotonic() < begun + _PATIENCE_S:
            if not self._under_way and time.monotonic() > self._last + _REST_S:
                return
            time.sleep(_REST_S / 10)


guarded_callback: Final = CallbackGate()

atexit.register(guarded_callback.settle)


@contextmanager
def silence_native_startup() -> Iterator[None]:
    """Sends what native code writes to standard error nowhere; exceptions pass as ever.

    TensorFlow's start-up messages cannot be turned off otherwise: they are written before its
    own settings are read.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
