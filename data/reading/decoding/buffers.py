"""Reusable buffers: page-faulting fresh memory costs as much as decoding into it."""

import math
import threading
import weakref
from collections import deque
from typing import Any, Final

import numpy as np

# Thread buffers above this size are freed after use.
MAX_THREAD_BUFFER_BYTES: Final = 64 << 20
# Free batch buffers that a pool keeps; more are in use only where a caller collects batches.
MAX_FREE_BUFFERS: Final = 32

_ALIGNMENT_BYTES: Final = 64


class ThreadBuffer(threading.local):
    """One buffer for each thread."""

    def __init__(self) -> None:
        self._memory = np.empty(0, np.uint8)

    def get(self, num_bytes: int) -> Any:
        """Return uint8 of at least `num_bytes`, valid until the thread's next call."""
        if self._memory.size >= num_bytes:
            return self._memory
        memory = np.empty(num_bytes, np.uint8)
        if num_bytes <= MAX_THREAD_BUFFER_BYTES:
            self._memory = memory
        return memory


class BatchBufferPool:
    """Memory of batches, reused as soon as no array and no tensor refers to it.

    Every array that `take` returns, and every view of it, keeps one owner array alive. The
    owner's finalizer returns the memory to the pool, in whichever thread drops the last
    reference; a garbage collection can run it inside `take`. Therefore the pool has no lock: it
    relies on the atomic append and pop of a deque.
    """

    def __init__(self) -> None:
        self._free: deque[Any] = deque(maxlen=MAX_FREE_BUFFERS)

    def take(self, shape: tuple[int, ...]) -> Any:
        """Return uint8 `shape`, aligned to 64 bytes so that TensorFlow takes it uncopied."""
        size = math.prod(shape)
        memory = self._free_memory(size + _ALIGNMENT_BYTES)
        start = -memory.ctypes.data % _ALIGNMENT_BYTES
        # numpy shortens chains of bases, but not past a memoryview: views refer to `owner`.
        owner = np.frombuffer(memoryview(memory), np.uint8)
        weakref.finalize(owner, self._free.append, memory).atexit = False
        return owner[start : start + size].reshape(shape)

    def _free_memory(self, num_bytes: int) -> Any:
        """Return free memory, new where there is none; drops buffers that are too small."""
        try:
            while (memory := self._free.pop()).size < num_bytes:
                pass
        except IndexError:
            return np.empty(num_bytes, np.uint8)
        return memory
