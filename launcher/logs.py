"""Logs: one file per worker with everything, and what of it is worth showing."""

import re
import time
from pathlib import Path
from typing import IO, Final

# What TensorFlow's C++ says on start-up, below the level of errors, and the errors that every
# machine without a GPU gets.
_NOISE: Final = re.compile(
    r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: [IW] |"
    r"^[IW]\d{4} \d\d:\d\d:\d+\.\d+ |"
    r"^WARNING: All log messages before absl::InitializeLog|"
    r"^To enable the following instructions:.*rebuild TensorFlow|"
    r"Unable to register cu(DNN|BLAS|FFT) (factory|plugin)|"
    r"failed call to cuInit|Could not find cuda drivers|"
    r"^$"
)


def is_noise(line: str) -> bool:
    """Says whether a line of output is TensorFlow's start-up chatter (or empty)."""
    return bool(_NOISE.search(line))


class WorkerLogs:
    """``logs/worker-N.log``: every line of each worker, over all attempts."""

    def __init__(self, folder: Path, num_workers: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._files: list[IO[str]] = [
            (folder / f"worker-{index}.log").open("a", encoding="utf-8", buffering=1)
            for index in range(num_workers)
        ]

    def write(self, worker: int, line: str) -> None:
        """Adds a line to a worker's log."""
        self._files[worker].write(line + "\n")

    def begin(self, title: str) -> None:
        """Begins a section, an attempt, in every log."""
        for file in self._files:
            file.write(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} {title} ---\n")

    def close(self) -> None:
        """Closes the files."""
        for file in self._files:
            file.close()
