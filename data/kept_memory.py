"""Memory that a thread uses again and again: fresh pages cost as much as what is put there."""

import threading
from typing import Any, Final

import numpy as np

# More than this is given back at once.
MOST_BYTES: Final = 64 << 20


class KeptMemory(threading.local):
    """Each thread's own memory."""

    def __init__(self) -> None:
        self._memory = np.empty(0, np.uint8)

    def of(self, num_bytes: int) -> Any:
        """Returns a uint8 array of at least `num_bytes`; it is this thread's until its next."""
        if self._memory.size >= num_bytes:
            return self._memory
        memory = np.empty(num_bytes, np.uint8)
        if num_bytes <= MOST_BYTES:
            self._memory = memory
        return memory
