"""The same run on 1, 3 and 8 real workers, and the files in its run directory."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

STEPS_PER_EPOCH = 25  # 1,617 records in batches of 64, 17 left over
EPOCHS = 3
WORKERS = (1, 3, 8)


@pytest.fixture(scope="module")
def runs(tenfold: Any, write_digits: Any, tmp_path_factory: Any) -> dict[int, Path]:
    folder = tmp_path_factory.mktemp("runs")
    shards = folder / "shards"
    write_digits(shards, "--num_workers=8")  # 8 lanes, which 3 workers share unevenly
    for workers in WORKERS:
        done = tenfold(
            "launch",
            f"--shards={shards}",
            f"--num_workers={workers}",
            f"--epochs={EPOCHS}",
            "--global_batch_size=64",
            "--seed=7",
            f"--run_dir={folder / str(workers)}",
        )
        assert done.status == 0, (workers, done.out, done.err)
    return {workers: folder / str(workers) for workers in WORKERS}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_losses_are_equal_on_any_number_of_workers(
    runs: dict[int, Path], read_metrics: Any
) -> None:
    of_one = read_metrics(runs[1])
    assert [line["kind"] for line in of_one].count("step") == EPOCHS * STEPS_PER_EPOCH
    for workers in WORKERS[1:]:
        of_more = read_metrics(runs[workers])
        assert [line["step"] for line in of_more] == [line["step"] for line in of_one]
        losses, others = ([line["loss"] for line in run] for run in (of_one, of_more))
        assert others[:STEPS_PER_EPOCH] == pytest.approx(losses[:STEPS_PER_EPOCH], rel=1e-3)
        # Rounding errors grow from step to step, on some processors to percents of a small loss.
        assert others == pytest.approx(losses, abs=0.02)
        ends = [[x for x in run if x["kind"] == "epoch"] for run in (of_one, of_more)]
        accuracies = [end[-1]["metrics"]["val_accuracy"] for end in ends]
        assert accuracies[0] == pytest.approx(accuracies[1], abs=1.5 / 180)
        expected, found = ([line["metrics"]["val_loss"] for line in run] for run in ends)
        assert found == pytest.approx(expected, abs=0.02)
        assert max(expected) > 2 * min(expected)
    # The comparison can fail: the losses of one run are far from alike.
    losses = [line["loss"] for line in of_one if line["kind"] == "step"]
    assert max(losses) > 10 * min(losses)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_receipts_are_exact(runs: dict[int, Path], read_metrics: Any) -> None:
    for run_dir in runs.values():
        for line in read_metrics(run_dir):
            if line["kind"] == "epoch":
                assert line["receipt"]["exact"]
                assert line["receipt"]["records"] == STEPS_PER_EPOCH * 64
                assert line["receipt"]["left_out"] == 1617 - STEPS_PER_EPOCH * 64
                assert line["validation_receipt"]["exact"]
                assert line["validation_receipt"]["records"] == 180


PREDICT = """
import sys, json, keras, numpy as np
from pathlib import Path
from PIL import Image
model = keras.models.load_model(sys.argv[1])
files = sorted(Path(sys.argv[2]).glob("*/*.png"))[::20]
images = np.stack([np.asarray(Image.open(f), "float32")[..., None] for f in files])
right = model.predict(images, verbose=0).argmax(1) == [int(f.parent.name) for f in files]
print(json.dumps({"accuracy": float(right.mean()), "images": len(files)}))
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_saved_model_predicts_in_plain_keras(runs: dict[int, Path], digits: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PREDICT, runs[3] / "model.keras", digits],
        capture_output=True,
        text=True,
        check=True,
    )
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["images"] == 90
    assert result["accuracy"] >= 0.95


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_run_directory_is_complete(runs: dict[int, Path]) -> None:
    for workers, run_dir in runs.items():
        result = json.loads((run_dir / "result.json").read_text())
        assert result["state"] == "succeeded"
        assert result["final"]["metrics"]["val_accuracy"] >= 0.95
        assert len(list((run_dir / "logs").glob("worker-*.log"))) == workers
        assert list((run_dir / "checkpoints").glob("*.npz"))
        assert list((run_dir / "tensorboard").glob("events.*"))
        assert not list(run_dir.glob(".*")), "a half-written file is left"
