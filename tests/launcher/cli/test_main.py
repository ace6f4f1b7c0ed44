"""The command line's frame: help, unknown words and exit statuses."""

import importlib.metadata
import re
import shlex
import subprocess
import sys
from typing import Any

import pytest

from tenfold.launcher.cli.main import COMMANDS


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
