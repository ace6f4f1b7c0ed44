"""A pool whose processes are stopped in the middle of their work."""

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
    """Makes a file for as long as it works; "fail" fails once the other is at it."""
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


def test_what_others_had_begun_is_removed_when_one_fails(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="the disk is full"):
        list(run_pool(partial(_work, tmp_path), ["long", "fail"], processes=2))
    assert not list(tmp_path.iterdir())


# As Ctrl-C reaches a process of the pool that has only just begun.
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


def test_an_interrupt_is_the_parents_alone_from_the_first_moment() -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[(1, 2), (2, 4)]\n", "")
