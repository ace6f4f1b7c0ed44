"""Training with run directory and shards on gs://: killed, resumed, and evaluated."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

STEPS_PER_EPOCH, EPOCHS = 25, 3
FLAGS = (
    "--num_workers=2",
    f"--epochs={EPOCHS}",
    "--global_batch_size=64",
    "--steps_per_execution=2",
    "--checkpoint_every=4",
)


@pytest.fixture
def shards(bucket: Any, write_digits: Any) -> str:
    """Shards of the digits on gs://."""
    output = f"{bucket.url}/shards"
    write_digits(output, "--num_workers=2")
    return output


READ = """
import sys, json, keras, numpy as np, tensorflow as tf
from pathlib import Path
from PIL import Image
model = keras.models.load_model(sys.argv[1])
files = sorted(Path(sys.argv[2]).glob("*/*.png"))[::20]
images = np.stack([np.asarray(Image.open(f), "float32")[..., None] for f in files])
right = model.predict(images, verbose=0).argmax(1) == [int(f.parent.name) for f in files]
steps = set()
for path in sys.argv[3:]:
    for event in tf.compat.v1.train.summary_iterator(path):
        steps |= {event.step for value in event.summary.value if value.tag == "step/loss"}
print(json.dumps({"accuracy": float(right.mean()), "steps": sorted(steps)}))
"""


def python(program: str, *arguments: object) -> Any:
    """Run a program of plain TensorFlow; return the JSON value in its last line."""
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_killed_run_resumes_on_another_machine(
    bucket: Any, shards: str, tenfold: Any, digits: Path, tmp_path: Path
) -> None:
    where = f"{bucket.url}/runs/one"
    flags = [f"--shards={shards}", f"--run_dir={where}", *FLAGS]
    # Worker 0 is killed, and the job restarts from a checkpoint; then worker 1 is killed for good.
    faults = ["--inject=kill:worker=0,step=10", "--inject=kill:worker=1,step=22,restart=1"]
    home = {"XDG_CACHE_HOME": str(tmp_path / "one")}
    killed = tenfold("launch", *flags, *faults, "--max_restarts=1", cwd=tmp_path, **home)
    assert killed.status == 1, killed.err
    result = json.loads(bucket.read("runs/one/result.json"))
    assert (result["state"], result["restarts"]) == ("failed", 1)
    assert result["first_failure"]["worker"] == 1
    # Both hosts restored the copy of the checkpoint in their memory.
    for worker in (0, 1):
        log = bucket.read(f"runs/one/logs/worker-{worker}.log").decode()
        assert re.search(r"restoring checkpoint-\S+ from this host's memory", log)
    # The steps between the checkpoint and the kill were run again, with the same losses.
    (note,) = result["notes"]
    match = re.search(r"repeated after a restart: (?:equal|at most (\S+) apart)", note)
    assert match is not None, note
    assert float(match[1] or 0) < 1e-3
    assert "runs/one/model.keras" not in bucket.names()
    newest = max(bucket.names("runs/one/checkpoints/"))
    epoch, step = (int(number) for number in newest.removesuffix(".npz").split("-")[-2:])
    saved = epoch * STEPS_PER_EPOCH + step
    assert saved >= 20

    # Another machine has only the files on gs://.
    home = {"XDG_CACHE_HOME": str(tmp_path / "other")}
    done = tenfold("launch", *flags, cwd=tmp_path, **home)
    assert done.status == 0, done.err
    history = [json.loads(line) for line in bucket.read("runs/one/history.jsonl").splitlines()]
    resumed = [line["step"] for line in history if line["kind"] == "resumed"]
    assert len(resumed) == 2 * 2
    assert resumed[-1] == saved
    assert [line["kind"] for line in history].count("launch") == 2

    lines = [json.loads(line) for line in bucket.read("runs/one/metrics.jsonl").splitlines()]
    steps = [line["step"] for line in lines if line["kind"] == "step"]
    assert steps == list(range(1, EPOCHS * STEPS_PER_EPOCH + 1))
    for line in lines:
        if line["kind"] == "epoch":
            assert line["receipt"]["exact"]
            assert line["validation_receipt"]["exact"]
    assert json.loads(bucket.read("runs/one/result.json"))["state"] == "succeeded"

    model = tmp_path / "model.keras"
    model.write_bytes(bucket.read("runs/one/model.keras"))
    boards = []
    for name in bucket.names("runs/one/tensorboard/"):
        boards.append(tmp_path / os.path.basename(name))
        boards[-1].write_bytes(bucket.read(name))
    assert len(boards) == 3
    read = python(READ, model, digits, *boards)
    assert read["accuracy"] >= 0.9
    assert read["steps"][-1] == EPOCHS * STEPS_PER_EPOCH

    reported = tenfold("report", where, cwd=tmp_path)
    assert reported.status == 0, reported.err
    page = (tmp_path / "one-report.html").read_text()
    assert "<title>one: succeeded</title>" in page
    assert "receipts, all exact" in page


def test_salvaged_shards_are_read_from_run_dir(
    bucket: Any, tenfold: Any, damaged_shards: Path, tmp_path: Path
) -> None:
    flags = [f"--shards={damaged_shards}", f"--run_dir={bucket.url}/run", "--num_workers=2"]
    home = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = tenfold("launch", *flags, "--on_bad_record=skip", cwd=tmp_path, **home)
    assert done.status == 0, done.err
    shard = sorted(damaged_shards.glob("train-*"))[3].name
    assert f"run/salvage/{shard}" in bucket.names()
    last = json.loads(bucket.read("run/metrics.jsonl").splitlines()[-1])
    assert last["receipt"]["exact"]
    assert last["receipt"]["records"] + last["receipt"]["left_out"] == 1616
    assert len(last["receipt"]["broken"]) == 1
