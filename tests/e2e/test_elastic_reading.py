"""Runs that resume on another number of workers, and runs over damaged shards."""

from pathlib import Path
from typing import Any

import pytest

MODEL = Path(__file__).with_name("stopping_model.py")
STEPS_PER_EPOCH = 25


def flags_of(shards: Path, run_dir: Path, workers: int) -> list[str]:
    return [
        f"--shards={shards}",
        f"--run_dir={run_dir}",
        f"--num_workers={workers}",
        f"--model={MODEL}:build",
        "--epochs=2",
        "--seed=11",
        "--augment=flip,crop:0.8",
        "--steps_per_execution=5",
        "--checkpoint_every=4",
    ]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_run_resumed_on_more_workers_has_equal_losses(
    tenfold: Any, digit_shards: Path, tmp_path: Path, read_metrics: Any
) -> None:
    whole = tenfold("launch", *flags_of(digit_shards, tmp_path / "whole", 1))
    assert whole.status == 0, whole.err
    parts = tmp_path / "parts"
    stopped = tenfold("launch", *flags_of(digit_shards, parts, 2), STOP_AT="39")
    assert stopped.status == 1
    assert "told to stop here" in stopped.out
    lines_before = [line for line in read_metrics(parts) if line["kind"] == "step"]
    assert lines_before[-1]["step"] == 36
    rest = tenfold("launch", *flags_of(digit_shards, parts, 4))
    assert rest.status == 0, rest.err

    expected, found = read_metrics(tmp_path / "whole"), read_metrics(parts)
    assert [(x["kind"], x["step"]) for x in found] == [(x["kind"], x["step"]) for x in expected]
    losses = [line["loss"] for line in found]
    assert losses == pytest.approx([line["loss"] for line in expected], rel=1e-3, abs=1e-4)
    assert max(losses) > 1.1 * min(losses), "the comparison cannot fail"
    receipt = found[-1]["receipt"]
    assert receipt["exact"]
    assert (receipt["records"], receipt["left_out"]) == (STEPS_PER_EPOCH * 64, 17)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_damaged_record_is_named(tenfold: Any, damaged_shards: Path, tmp_path: Path) -> None:
    flags = flags_of(damaged_shards, tmp_path / "run", 2)
    done = tenfold("launch", *flags)
    assert done.status == 1
    first = next(line for line in done.out.splitlines() if "JobError" in line)
    assert "train-00003-of-" in first
    assert "record 0 at byte 0: the checksum of its" in first


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_damaged_record_is_skipped_and_reported(
    tenfold: Any, damaged_shards: Path, tmp_path: Path, read_metrics: Any
) -> None:
    flags = flags_of(damaged_shards, tmp_path / "run", 2)
    done = tenfold("launch", *flags, "--on_bad_record=skip")
    assert done.status == 0, done.err
    assert "skipped: train-00003-of-" in done.err
    assert "each read once" in done.err
    epochs = [line for line in read_metrics(tmp_path / "run") if line["kind"] == "epoch"]
    for line in epochs:
        receipt = line["receipt"]
        assert receipt["exact"]
        assert receipt["records"] + receipt["left_out"] == receipt["expected"] == 1616
        assert len(receipt["broken"]) == 1
        assert "record 0 at byte 0" in receipt["broken"][0]
        assert not line["validation_receipt"]["broken"]
        assert line["bottleneck"]["bound"] in ("input", "compute", "communication")
        assert len(line["bottleneck"]["wait"]) == 2
