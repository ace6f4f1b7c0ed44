"""The pool of processes when its workers are stopped or interrupted."""

import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tenfold.data.errors import JobError
from tenfold.data.runtime.process_pool import run_pool

pytestmark = pytest.mark.timeout(240)


def _work(folder: Path, item: str, note: Callable[[Any], None]) -> None:
    """Hold a file while working; the item "fail" raises once the other item is in work."""
    other = folder / "long"
    if item == "fail":
        while not other.exists():
            time.sleep(0.01)
        raise JobError("the disk is full")
    try:
        other.write_text("half")
        time.sleep(1000)  # far beyond the test's time limit
    finally:
        other.unlink()


def test_failure_stops_others_and_their_files_go(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="the disk is full"):
        list(run_pool(partial(_work, tmp_path), ["long", "fail"], processes=2))
    assert not list(tmp_path.iterdir())


# Ctrl-C reaches a worker that has only just started.
INTERRUPTED = """
import os, signal
from tenfold.data.runtime import process_pool as pool

serve = pool._serve

def interrupted(*arguments):
    os.kill(os.getpid(), signal.SIGINT)
    serve(*arguments)

pool._serve = interrupted
doubled = pool.run_pool(lambda item, note: 2 * item, [1, 2], processes=2)
print(sorted(doubled))
"""


def test_workers_ignore_sigint_from_the_start() -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[(1, 2), (2, 4)]\n", "")
