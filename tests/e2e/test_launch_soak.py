"""A short soak test: one job with random faults."""

import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).parents[2] / "scripts" / "soak"


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_soak_of_one_job_finds_no_error(digit_shards):
    done = subprocess.run(
        [sys.executable, SOAK, f"--shards={digit_shards}", "--seconds=1", "--seed=5"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("1 jobs, ")
    assert " 0 failed" in done.stdout
