"""Two workers with two devices each, compared with one worker with one device."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).with_name("replicas_program.py")


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_training_on_four_replicas_equals_one(
    tenfold: Any, digit_shards: Path, tmp_path: Path, read_metrics: Any
) -> None:
    flags = ["--num_workers=1", "--epochs=2", "--seed=7", f"--shards={digit_shards}"]
    one = tenfold("launch", *flags, f"--run_dir={tmp_path / 'one'}")
    assert one.status == 0, one.err
    program = [sys.executable, str(PROGRAM), str(digit_shards), str(tmp_path / "files")]
    four = tenfold("launch", "--num_workers=2", f"--run_dir={tmp_path / 'four'}", "--", *program)
    assert four.status == 0, four.err
    for worker in range(2):
        log = (tmp_path / "four/logs" / f"worker-{worker}.log").read_text()
        assert json.loads(log.split("RESULT")[1].splitlines()[0])["replicas"] == 4

    expected, found = read_metrics(tmp_path / "one"), read_metrics(tmp_path / "files")
    assert [(x["kind"], x["step"]) for x in found] == [(x["kind"], x["step"]) for x in expected]
    losses = [line["loss"] for line in found]
    assert losses == pytest.approx([line["loss"] for line in expected], rel=1e-3, abs=1e-4)
    assert max(losses) > 5 * min(losses), "the comparison cannot fail"
    for ours, theirs in zip(found, expected, strict=True):
        assert ours["metrics"] == pytest.approx(theirs["metrics"], rel=1e-2, abs=0.01)
        if ours["kind"] == "epoch":
            assert ours["receipt"]["exact"]
            assert ours["validation_receipt"]["exact"]
            assert ours["receipt"]["records"] == 1600
            assert ours["validation_receipt"]["records"] == 180
