"""Memory that is used again and again: fresh pages cost as much as what is put there."""

import math
import sys
import threading
from typing import Any, Final

import numpy as np

# More than this is given back at once.
MAX_BYTES: Final = 64 << 20
# So many batches are kept at most; more are under way only where somebody collects them.
MAX_BATCHES: Final = 32

_ALIGNMENT: Final = 64


class ThreadBuffer(threading.local):
    """Each thread's own memory."""

    def __init__(self) -> None:
        self._memory = np.empty(0, np.uint8)

    def of(self, num_bytes: int) -> Any:
        """Returns a uint8 array of at least `num_bytes`; it is this thread's until its next."""
        if self._memory.size >= num_bytes:
            return self._memory
        memory = np.empty(num_bytes, np.uint8)
        if num_bytes <= MAX_BYTES:
            self._memory = memory
        return memory


def _references(kept: list[Any], at: int) -> int:
    return sys.getrefcount(kept[at])


# What that is where the list alone refers to something: it differs between Pythons.
_UNUSED: Final = _references([np.empty(0, np.uint8)], 0)


class BatchBufferPool:
    """Memory of batches, taken again once nobody refers to them any more."""

    def __init__(self) -> None:
        self._kept: list[Any] = []
        self._lock = threading.Lock()

    def array(self, shape: tuple[int, ...]) -> Any:
        """Returns an uint8 array at a multiple of 64 bytes, which TensorFlow takes uncopied."""
        size = math.prod(shape)
        with self._lock:
            memory = self._unused(size + _ALIGNMENT)
        start = -memory.ctypes.data % _ALIGNMENT
        return memory[start : start + size].reshape(shape)

    def _unused(self, num_bytes: int) -> Any:
        kept = self._kept
        for at in range(len(kept)):
            # An array that has been given out, and every view of it, refers to its memory.
            if _references(kept, at) == _UNUSED and kept[at].size >= num_bytes:
                return kept[at]
        memory = np.empty(num_bytes, np.uint8)
        if len(kept) < MAX_BATCHES:
            kept.append(memory)
        return memory
