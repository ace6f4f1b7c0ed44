"""Short soak tests: one job with random faults, a few writes."""

import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).parents[2] / "scripts" / "soak"


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_soak_of_one_job_finds_no_error(digit_shards):
    done = subprocess.run(
        [sys.executable, SOAK, "jobs", f"--shards={digit_shards}", "--seconds=1", "--seed=5"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("1 jobs in ")
    assert " 0 failed" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_soak_of_writes_finds_no_error(tmp_path):
    done = subprocess.run(
        [sys.executable, SOAK, "writes", "--seconds=5", "--seed=5", f"--findings={tmp_path}"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].endswith(" 0 findings")
