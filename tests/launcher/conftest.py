"""Fixtures for launches of small programs: real processes, without TensorFlow."""

import contextlib
import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from tenfold.data.errors import UserError
from tenfold.launcher.backends.backend_registry import load_backend
from tenfold.launcher.worker.python_argv import module_argv

# Start of every test program: it writes the line format of launcher/job/events.py by itself.
PRELUDE = """
import json, os, signal, sys, time
index = int(os.environ["TENFOLD_WORKER_INDEX"])
count = int(os.environ["TENFOLD_NUM_WORKERS"])
restart = int(os.environ["TENFOLD_RESTART"])
run_dir = os.environ["TENFOLD_RUN_DIR"]
def say(kind, phase, **data):
    line = {"kind": kind, "worker": index, "phase": phase, "time": time.time(), "data": data}
    print("\\x1e" + json.dumps(line), flush=True)
def wait_for(name, seconds=90):
    end = time.monotonic() + seconds
    while not os.path.exists(os.path.join(run_dir, name)):
        assert time.monotonic() < end, name
        time.sleep(0.01)
def mark(name, text=""):
    path = os.path.join(run_dir, name)
    with open(path + ".part", "w") as file:
        file.write(text)
    os.replace(path + ".part", path)  # atomic: a reader sees the whole text
"""


@dataclass
class Launch:
    """One `tenfold launch` in a folder of its own."""

    folder: Path
    prefix: tuple[str, ...] = ()  # runs the command line elsewhere, as in a namespace
    process: "subprocess.Popen[str] | None" = None
    out: str = ""
    err: str = ""
    status: int | None = None
    seen: list[psutil.Process] = field(default_factory=list)

    @property
    def run_dir(self) -> Path:
        return self.folder / "run"

    @property
    def result(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads((self.run_dir / "result.json").read_text())
        return document

    @property
    def history(self) -> list[dict[str, Any]]:
        lines = (self.run_dir / "history.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def log(self, worker: int) -> str:
        return (self.run_dir / "logs" / f"worker-{worker}.log").read_text()

    def program(self, text: str, name: str = "program.py") -> Path:
        path = self.folder / name
        path.write_text(PRELUDE + textwrap.dedent(text))
        return path

    def start(self, *flags: str, text: str | None = None, program: tuple[str, ...] = ()) -> None:
        """Start a launch of the Python program `text`, of `program`, or of the trainer."""
        if text is not None:
            program = (sys.executable, str(self.program(text)))
        command = [*self.prefix, *module_argv("tenfold", ["launch"])]
        command.append(f"--run_dir={self.run_dir}")
        self.process = subprocess.Popen(
            [*command, *flags, *(("--", *program) if program else ())],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TENFOLD_TEST_FOLDER": str(self.folder)},
        )

    def finish(self, timeout_s: float = 200) -> "Launch":
        assert self.process is not None
        self.out, self.err = self.process.communicate(timeout=timeout_s)
        self.status = self.process.returncode
        return self

    def run(self, *flags: str, text: str | None = None, program: tuple[str, ...] = ()) -> "Launch":
        self.start(*flags, text=text, program=program)
        return self.finish()

    def wait_for(self, *names: str, timeout_s: float = 90) -> None:
        """Wait until the workers have made all of these files in the run directory."""
        end = time.monotonic() + timeout_s
        while not all((self.run_dir / name).exists() for name in names):
            assert time.monotonic() < end, f"no {names} in {timeout_s} s"
            assert self.process is not None
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.01)

    def processes(self) -> list[psutil.Process]:
        """All living processes of this launch: their environment holds its folder."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            alive = process.status() != psutil.STATUS_ZOMBIE
            return alive and process.environ().get("TENFOLD_TEST_FOLDER") == str(self.folder)
        except (psutil.Error, OSError):
            return False

    def assert_nothing_left(self, within_s: float = 60) -> None:
        """Check that every process of this launch ends in time."""
        end = time.monotonic() + within_s
        while left := self.processes():
            assert time.monotonic() < end, [process.cmdline() for process in left if process]
            time.sleep(0.02)


@pytest.fixture(scope="session")
def netns_works() -> None:
    """Skip the test where this machine allows no network namespaces."""
    backend = load_backend("netns")
    try:
        with backend.opened(backend.hosts(1)):
            pass
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    """A launch in a folder with an awkward name; its processes are killed at the end."""
    folder = tmp_path / "a'; echo foo"
    folder.mkdir()
    launch = Launch(folder)
    yield launch
    runs = launch.process is not None and launch.process.poll() is None
    if launch.process is not None and runs:
        launch.process.kill()
    for process in launch.processes():
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
            process.kill()
    if launch.process is not None and runs:
        launch.process.communicate()  # its descendants hold the pipes too


class Clock:
    """A stand-in for the module `time` that a test moves forward."""

    def __init__(self) -> None:
        self.now = 1000.0

    def time(self) -> float:
        return self.now

    monotonic = time


@pytest.fixture
def clock() -> Clock:
    """A clock that only the test moves."""
    return Clock()
