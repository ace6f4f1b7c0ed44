"""Completion in real shells, colours, and flags from a file."""

import os
import pty
import re
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tenfold.launcher.cli.completion import CommandWords, FlagWords, bash_script, zsh_script
from tenfold.launcher.cli.main import COMMANDS
from tenfold.launcher.worker.python_argv import module_argv

HOSTILE = CommandWords(
    "plan", "it's [a]: $(touch owned) `id`", (FlagWords("x", "it's [a]: $(touch owned) \\ `id`"),)
)


def completed(script: str, *words: str, cwd: Path) -> list[str]:
    """What bash offers for a line that it has split into `words`, the last one unfinished."""
    program = (
        'eval "$SCRIPT"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _tenfold; '
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", program, "bash", "tenfold", *words],
        env={**os.environ, "SCRIPT": script},
        capture_output=True,
        text=True,
        check=True,
        cwd=cwd,
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.fixture(scope="module")
def bash(tenfold: Any) -> str:
    done = tenfold("completion", "bash")
    assert done.status == 0
    return str(done.out)


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["pl"], {"plan"}),
        ([""], set(COMMANDS)),
        (["plan", "--num_w"], {"--num_workers="}),
        (["write", "--over"], {"--overwrite"}),
        (["write", "--noover"], {"--nooverwrite"}),
        (["plan", "--format", "="], {"table", "json"}),
        (["plan", "--format", "=", "j"], {"json"}),
        (["launch", "--shards", "=", "sh"], {"shards"}),
        (["report", ""], {"shards", "run"}),
        (["plan", "--flagf"], {"--flagfile="}),
        (["frobnicate", "--x"], set()),
    ],
)
def test_bash_offers_what_fits(
    bash: str, words: list[str], offered: set[str], tmp_path: Path
) -> None:
    (tmp_path / "shards").mkdir()
    (tmp_path / "run").mkdir()
    assert set(completed(bash, *words, cwd=tmp_path)) == offered


def test_every_flag_of_every_command_is_offered(bash: str, tenfold: Any, tmp_path: Path) -> None:
    for command in ("plan", "launch"):
        shown = set(re.findall(r"^  (--[a-z_]+)=…", tenfold(command, "--help").out, re.M))
        offered = {word.rstrip("=") for word in completed(bash, command, "--", cwd=tmp_path)}
        assert shown
        assert shown <= offered


class Terminal:
    """A program under a pseudo-terminal."""

    def __init__(self, argv: list[str], *, cwd: Path, env: dict[str, str]) -> None:
        self.seen = ""
        self._pid, self._master = pty.fork()
        if self._pid == 0:  # pragma: no cover
            os.chdir(cwd)
            os.execvpe(argv[0], argv, env)

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def read_until(self, pattern: str, *, within_s: float = 60) -> str:
        """Reads until the output since the last call matches `pattern`, the program has ended or
        the time is up; returns that output.
        """
        end = time.monotonic() + within_s
        while not re.search(pattern, self.seen) and time.monotonic() < end:
            if select.select([self._master], [], [], 0.1)[0]:
                try:
                    data = os.read(self._master, 1 << 16)
                except OSError:  # the program has ended
                    data = b""
                if not data:
                    break
                self.seen += data.decode(errors="replace")
        seen, self.seen = self.seen, ""
        return seen

    def close(self) -> int:
        os.close(self._master)
        return os.waitpid(self._pid, 0)[1]


@pytest.mark.timeout(240)
def test_zsh_completes_commands_flags_values_and_files(tenfold: Any, tmp_path: Path) -> None:
    if shutil.which("zsh") is None:
        pytest.skip("needs zsh (.ci/run installs it)")
    (tmp_path / "_tenfold").write_text(tenfold("completion", "zsh").out)
    (tmp_path / "a_shards_folder").mkdir()
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TERM": "dumb", "LANG": "C.UTF-8"}
    zsh = Terminal(["zsh", "-f", "-i"], cwd=tmp_path, env=env)
    zsh.type("PS1='' ; autoload -U compinit; compinit -u -D; source ./_tenfold; echo rea''dy\n")
    assert "ready" in zsh.read_until("ready")
    for typed, shown in (
        ("tenfold pl\t", "tenfold plan "),
        ("tenfold plan --num_w\t", "--num_workers="),
        ("tenfold plan --format=j\t", "--format=json"),
        ("tenfold launch --shards=a_sh\t", "--shards=a_shards_folder"),
        ("tenfold write --noover\t", "--nooverwrite"),
    ):
        zsh.type(typed)
        assert shown in zsh.read_until(re.escape(shown))
        zsh.type("\x15")  # ^U: empties the line
    zsh.type("exit\n")
    zsh.close()


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_no_text_of_ours_is_run_by_a_shell(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell} (.ci/run installs it)")
    script = {"bash": bash_script, "zsh": zsh_script}[shell]([HOSTILE])
    (tmp_path / "script").write_text(script)
    quiet = {"bash": "", "zsh": "compdef() { :; }; "}[shell]
    call = "COMP_WORDS=(tenfold '') COMP_CWORD=1; _tenfold" if shell == "bash" else ":"
    done = subprocess.run(
        [shell, "-c", f"{quiet}source ./script; {call}"],
        capture_output=True, text=True, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert [path.name for path in tmp_path.iterdir()] == ["script"]


def test_an_unknown_shell_is_told_which_there_are(tenfold: Any) -> None:
    done = tenfold("completion", "fish")
    assert done.status == 2
    assert "bash, zsh" in done.err


@pytest.mark.timeout(120)
@pytest.mark.parametrize("no_color", ["", "1"])
def test_no_color_is_heeded_on_a_terminal(tmp_path: Path, no_color: str) -> None:
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}
    env = {name: value for name, value in env.items() if name not in ("NO_COLOR", "CI")}
    if no_color:
        env["NO_COLOR"] = no_color
    program = ["sh", "-c", "echo hello; sleep 0.5"]
    argv = list(module_argv("tenfold", ["launch", "--num_workers=2", "--", *program]))
    terminal = Terminal(argv, cwd=tmp_path, env=env)
    seen = terminal.read_until("succeeded in")
    terminal.close()
    coloured = re.findall(r"\x1b\[(?:\d+;)*(?:3[0-7]|9[0-7]|38;5;\d+)(?:;\d+)*m", seen)
    assert "hello" in seen
    assert "succeeded in" in seen
    assert bool(coloured) == (not no_color), seen


def test_flags_come_from_a_file(tenfold: Any, tmp_path: Path) -> None:
    flagfile = tmp_path / "plan.flags"
    flagfile.write_text("# ten gigabytes\n--dataset_size=10GB\n--num_workers=4\n")
    done = tenfold("plan", f"--flagfile={flagfile}", "--num_workers=8")
    assert done.status == 0, done.err
    assert "80 of 125 MB" in done.out  # what follows the file counts
    missing = tenfold("plan", "--flagfile=/nonexistent")
    assert missing.status == 2
    assert missing.err.startswith("tenfold: --flagfile cannot be read")
