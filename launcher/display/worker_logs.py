"""Log files of the workers, and the filter of TensorFlow's log lines on the screen."""

import contextlib
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Final

from tenfold.data.errors import naming_file
from tenfold.data.storage.local_folder import open_appending
from tenfold.launcher.job.run_dir import worker_log_name

# A log line of TensorFlow's C++ code, with groups for its level and message. 2.21 writes
#   I0000 00:00:1795382899.355895   10743 port.cc:153] oneDNN custom operations are on. …
# (with a real date and time once absl's logging is initialised), older versions write
#   2026-11-22 10:00:00.123456: I tensorflow/core/util/port.cc:153] oneDNN custom …
# absl in Python writes the same form, but its source files end in .py.
_CC_LINE: Final = re.compile(
    r"(?:([IWE])\d{4} \d\d:\d\d:\d+\.\d+ +\d+|"
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: ([IWE])) [\w./+-]+\.cc:\d+\] (.*)"
)
# Errors that TensorFlow logs on every machine without a GPU.
_NO_GPU: Final = re.compile(
    r"failed call to cuInit: |Unable to register cu(?:DNN|BLAS|FFT) (?:factory|plugin)"
)
# Lines that the C++ code prints around its log lines, without their prefix.
_LOOSE: Final = re.compile(
    r"WARNING: All log messages before absl::InitializeLog\(\) is called are written to STDERR$|"
    r"To enable the following instructions: .*, rebuild TensorFlow with the appropriate compiler"
)


def is_noise(line: str) -> bool:
    """Return True for a line that TensorFlow's C++ code logs and a user need not see."""
    found = _CC_LINE.match(line)
    if found is None:
        return bool(_LOOSE.match(line))
    level, message = found[1] or found[2], found[3]
    return level != "E" or bool(_NO_GPU.match(message))


class WorkerLogs:
    """``logs/worker-N.log``: every line of each worker, over all attempts."""

    def __init__(self, folder: Path, workers: Iterable[int]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._files: dict[int, IO[str]] = {
            index: open_appending(folder / worker_log_name(index)) for index in workers
        }

    def write(self, worker: int, line: str) -> None:
        """Append a line to a worker's log."""
        self._append(self._files[worker], line + "\n")

    def begin(self, title: str) -> None:
        """Append a heading to every log; an attempt begins."""
        for file in self._files.values():
            self._append(file, f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} {title} ---\n")

    def close(self) -> None:
        """Close the files; a line that could not be written has been reported before."""
        for file in self._files.values():
            with contextlib.suppress(OSError):
                file.close()

    def _append(self, file: IO[str], text: str) -> None:
        with naming_file(file.name):
            file.write(text)
