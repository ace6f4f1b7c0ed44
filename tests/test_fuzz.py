"""A short run of scripts/fuzz finds nothing, and its findings can be replayed."""

import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).parent.parent / "scripts" / "fuzz"


def fuzz(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(FUZZ), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.slow
def test_short_fuzz_run_finds_no_error(tmp_path: Path) -> None:
    done = fuzz("--seconds=20", "--seed=1", f"--findings={tmp_path}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == 6, done.stdout
    assert not list(tmp_path.iterdir())


def test_fuzz_reports_slow_inputs_and_replays_them(tmp_path: Path) -> None:
    done = fuzz("--seconds=0.1", "--targets=frames", "--slow=-1", f"--findings={tmp_path}")
    assert done.returncode == 1, done.stdout + done.stderr
    finding = tmp_path / "frames-0-1.bin"
    if not finding.exists():
        finding = next(tmp_path.iterdir())
    assert f"{finding}: it took" in done.stdout
    assert fuzz(f"--replay={finding}").returncode == 0
    assert fuzz("--slow=-1", f"--replay={finding}").returncode == 1
