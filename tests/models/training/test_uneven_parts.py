"""The same losses and metrics on numbers of workers that do not divide the lanes or the batch."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).with_name("uneven_program.py")
CASES = (
    "64:drop:1,3,7",  # lanes are shared unevenly
    "203:pad:1,2x3,7",  # nor do the lanes divide the batch; steps are computed in three parts
    "203:repeat:1,8",
    "5:drop:1,7x2",  # some workers have no record of a step
)


@pytest.fixture(scope="module")
def results(
    write_digits: Callable[..., None], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """The JSON of each case; one process starts TensorFlow once for all of them."""
    shards = tmp_path_factory.mktemp("eight_lanes") / "shards"
    write_digits(shards, "--num_workers=8")
    command = [sys.executable, str(PROGRAM), str(shards), *CASES]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=800)
    assert done.returncode == 0, done.stderr[-4000:]
    return dict(zip(CASES, done.stdout.splitlines()[-len(CASES) :], strict=True))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("case", CASES)
def test_losses_do_not_depend_on_the_number_of_workers(results: dict[str, str], case: str) -> None:
    batch, remainder, counts = case.split(":")
    found: dict[str, Any] = json.loads(results[case])
    assert list(found) == counts.split(",")
    expected = found.pop("1")
    assert len(set(expected["losses"])) > 3
    for result in found.values():
        assert result["losses"] == pytest.approx(expected["losses"], rel=1e-4, abs=1e-6)
        assert result["records"] == expected["records"]
        for one, other in zip(result["metrics"], expected["metrics"], strict=True):
            assert one == pytest.approx(other, abs=2e-3)
    if remainder != "drop":
        assert set(expected["records"]) == {1617}  # all records, each counted once
    assert any(result["empty"] for result in found.values()) == (
        batch == "5" or remainder == "pad"
    )
