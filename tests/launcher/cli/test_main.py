"""The command line's frame: help, unknown words, exit statuses, and what it imports."""

import importlib.metadata
import re
import shlex
import subprocess
import sys
from typing import Any

import pytest

from tenfold.launcher.cli.main import COMMANDS

IMPORTED = """
import contextlib, io, sys
from tenfold.launcher.cli.main import main
with contextlib.redirect_stdout(io.StringIO()):
    status = main(sys.argv[1:])
assert status == 0, status
heavy = {"tensorflow", "keras", "numpy", "fsspec", "rich", "pyarrow", "matplotlib"}
print(*sorted(heavy & set(sys.modules)))
"""

LIGHT = [
    ["--help"],
    ["plan", "--help"],
    ["launch", "--help"],
    ["plan", "--dataset_size=10GB", "--num_workers=4"],
    ["plan", "--dataset_size=10GB", "--num_workers=4", "--format=json"],
]


@pytest.mark.parametrize("arguments", LIGHT, ids=" ".join)
def test_planning_and_help_import_nothing_heavy(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED, *arguments], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


def test_overview_imports_no_command() -> None:
    probe = IMPORTED.partition("heavy =")[0] + "print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", probe, "--help"], capture_output=True, text=True, check=True
    )
    frame = {"tenfold.launcher.cli", "tenfold.launcher.cli.main"}
    imported = set(done.stdout.split())
    assert frame <= imported
    rest = imported - frame
    assert [name for name in rest if name.startswith(("absl", "tenfold.launcher."))] == []


def test_import_probe_can_fail() -> None:
    code = "import sys, numpy; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def test_help_lists_every_command(tenfold: Any) -> None:
    done = tenfold("--help")
    assert done.status == 0
    for name in COMMANDS:
        assert re.search(rf"^  {name} ", done.out, re.M), name


@pytest.mark.parametrize("command", COMMANDS)
def test_command_help_lists_flags(tenfold: Any, command: str) -> None:
    done = tenfold(command, "--help")
    assert done.status == 0
    assert f"tenfold {command}" in done.out
    assert "--" in done.out
    assert "absl" not in done.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["plna"], "did you mean 'plan'"),
        (["frobnicate"], "there are: plan"),
        (["plan", "--datset_size=1GB"], "did you mean --dataset_size"),
        (["plan", "--dataset_size=ten"], "write 250MB, 10GB or 64MiB"),
        (["plan", "extra"], "unexpected argument 'extra'"),
    ],
)
def test_unknown_word_is_one_line_and_status_2(
    tenfold: Any, arguments: list[str], words: str
) -> None:
    done = tenfold(*arguments)
    assert done.status == 2
    assert words in done.err
    assert len(done.err.splitlines()) == 1
    assert done.out == ""


def test_version(tenfold: Any) -> None:
    from tenfold import __version__

    assert __version__ == importlib.metadata.version("tenfold")
    assert tenfold("--version").out == f"tenfold {__version__}\n"


def test_closed_pipe_gives_no_traceback() -> None:
    script = f"{shlex.quote(sys.executable)} -m tenfold --help | head -n 1"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("tenfold COMMAND")
    assert done.stderr == ""
