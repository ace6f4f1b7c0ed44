"""The processor cores of this machine."""

import os


def usable_cpus() -> int:
    """Return the number of CPU cores that this process may use: its affinity, where known."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
