"""The training loop on one and two replicas of one process, against Keras's own evaluate."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tenfold.data.format.manifest import manifest_to_json
from tenfold.data.storage.read_manifest import read_manifest

PROGRAM = Path(__file__).with_name("loop_program.py")

STOPPED = """
import sys
from tenfold.data.reading.read_options import WorkerPlace
from tenfold.models.train_config import TrainConfig
from tenfold.models.training.loop import Preempted, train
from tenfold.models.training.reporting.reporter import NullReporter
import tensorflow as tf

shards, run_dir, model, steps_per_execution = sys.argv[1:]
config = TrainConfig(
    shards, run_dir, model=model, epochs=3, steps_per_execution=int(steps_per_execution),
    working_dir=sys.path[0],
)
steps = []

class Reporter(NullReporter):
    def checkpoint(self, path, *, epoch, step):
        steps.append(step)

try:
    train(
        config, strategy=tf.distribute.get_strategy(), place=WorkerPlace(), reporter=Reporter(),
        stop=lambda: True,
    )
except Preempted:
    print(steps)
"""


def run_loop(
    shards: Path, run_dir: Path, *, replicas: int, model: str, validation: Path | None = None
) -> dict[str, Any]:
    arguments = [sys.executable, str(PROGRAM), str(shards), str(run_dir), str(replicas), model]
    arguments += [str(validation)] if validation else []
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("model", ["own_models.py:regularised", "own_models.py:own_step"])
def test_evaluation_equals_keras_evaluate(digit_shards: Path, tmp_path: Path, model: str) -> None:
    result = run_loop(digit_shards, tmp_path / "run", replicas=1, model=model)
    assert result["steps"] == 25
    assert_evaluated_alike(result)


@pytest.mark.slow
def test_evaluation_reads_validation_shards(digit_shards: Path, tmp_path: Path) -> None:
    """Other shards, whose only split is called train and begins with shards of the same names."""
    manifest = read_manifest(str(digit_shards))
    other = tmp_path / "other"
    other.mkdir()
    alone = replace(manifest, splits=manifest.splits[:1])
    (other / "manifest.json").write_text(manifest_to_json(alone))
    for shard in alone.splits[0].shards:
        (other / shard.name).write_bytes((digit_shards / shard.name).read_bytes())
    result = run_loop(digit_shards, tmp_path / "run", replicas=1, model="cnn", validation=other)
    assert_evaluated_alike(result, records=alone.splits[0].num_records)


def assert_evaluated_alike(result: dict[str, Any], *, records: int = 180) -> None:
    assert result["keras"]["records"] == records
    assert result["ours"]["val_loss"] == pytest.approx(result["keras"]["loss"], rel=1e-4)
    for name in set(result["keras"]) - {"loss", "records"}:
        assert result["ours"][f"val_{name}"] == pytest.approx(result["keras"][name], abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["own_models.py:clipped", "own_models.py:regularised"])
def test_two_replicas_equal_one(
    digit_shards: Path, tmp_path: Path, model: str, read_metrics: Any
) -> None:
    for replicas in (1, 2):
        run_dir = tmp_path / str(replicas)
        result = run_loop(digit_shards, run_dir, replicas=replicas, model=model)
        assert_evaluated_alike(result)
    one, two = (
        [line["loss"] for line in read_metrics(tmp_path / str(replicas))] for replicas in (1, 2)
    )
    assert len(one) == 26
    assert one == pytest.approx(two, rel=1e-3, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("steps_per_execution", [10, 25])
def test_stop_request_is_obeyed(
    digit_shards: Path, tmp_path: Path, steps_per_execution: int
) -> None:
    """Within an epoch of 25 steps, and where a call of steps is a whole epoch."""
    (tmp_path / "stopped.py").write_text(STOPPED)
    arguments = [str(digit_shards), str(tmp_path / "run"), "mlp", str(steps_per_execution)]
    done = subprocess.run(
        [sys.executable, "stopped.py", *arguments],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    assert done.stdout == f"[{steps_per_execution}]\n", done.stderr[-4000:]
