"""The training loop on one and two replicas of one process, against Keras's own evaluate."""

import json
import subprocess
import sys
from dataclasses import dataclass, replace
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

shards, model, *calls = sys.argv[1:]

class Reporter(NullReporter):
    def checkpoint(self, path, *, epoch, step):
        steps.append(step)

for steps_per_execution in calls:
    config = TrainConfig(
        shards, "run-" + steps_per_execution, model=model, epochs=3,
        steps_per_execution=int(steps_per_execution), working_dir=sys.path[0],
    )
    steps = []
    try:
        train(
            config, strategy=tf.distribute.get_strategy(), place=WorkerPlace(),
            reporter=Reporter(), stop=lambda: True,
        )
    except Preempted:
        print(steps)
"""


# The trainings of one process: replicas, model, and whether other shards are for validation.
TRAININGS = {
    "regularised": (1, "own_models.py:regularised", False),
    "regularised on two": (2, "own_models.py:regularised", False),
    "clipped": (1, "own_models.py:clipped", False),
    "clipped on two": (2, "own_models.py:clipped", False),
    "own_step": (1, "own_models.py:own_step", False),
    "other": (1, "cnn", True),
}


@dataclass(frozen=True)
class Trained:
    """The run directories of TRAININGS, and the metrics by Tenfold and by Keras."""

    folder: Path
    results: dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def trained(
    digit_shards: Path, other_shards: Path, tmp_path_factory: pytest.TempPathFactory
) -> Trained:
    """One process starts TensorFlow once for all trainings."""
    folder = tmp_path_factory.mktemp("trained")
    arguments = [
        json.dumps([str(folder / name), replicas, model, str(other_shards) if other else ""])
        for name, (replicas, model, other) in TRAININGS.items()
    ]
    command = [sys.executable, str(PROGRAM), str(digit_shards), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=220)
    assert done.returncode == 0, done.stderr[-4000:]
    lines = done.stdout.splitlines()[-len(TRAININGS) :]
    return Trained(folder, dict(zip(TRAININGS, map(json.loads, lines), strict=True)))


@pytest.fixture(scope="module")
def other_shards(digit_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards whose only split is called train and begins with shards of the same names."""
    manifest = read_manifest(str(digit_shards))
    other = tmp_path_factory.mktemp("other")
    alone = replace(manifest, splits=manifest.splits[:1])
    (other / "manifest.json").write_text(manifest_to_json(alone))
    for shard in alone.splits[0].shards:
        (other / shard.name).write_bytes((digit_shards / shard.name).read_bytes())
    return other


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAININGS)
def test_evaluation_equals_keras_evaluate(trained: Trained, other_shards: Path, name: str) -> None:
    """Of the split `validation`, and of other shards."""
    result = trained.results[name]
    assert result["steps"] == 25
    split = read_manifest(str(other_shards)).splits[0]
    records = split.num_records if name == "other" else 180
    assert result["keras"]["records"] == records
    assert result["ours"]["val_loss"] == pytest.approx(result["keras"]["loss"], rel=1e-4)
    for metric in set(result["keras"]) - {"loss", "records"}:
        assert result["ours"][f"val_{metric}"] == pytest.approx(result["keras"][metric], abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["clipped", "regularised"])
def test_two_replicas_equal_one(trained: Trained, model: str, read_metrics: Any) -> None:
    one, two = (
        [line["loss"] for line in read_metrics(trained.folder / name)]
        for name in (model, f"{model} on two")
    )
    assert len(one) == 26
    assert one == pytest.approx(two, rel=1e-3, abs=1e-4)


@pytest.mark.slow
def test_stop_request_is_obeyed(digit_shards: Path, tmp_path: Path) -> None:
    """Within an epoch of 25 steps, and where a call of steps is a whole epoch."""
    (tmp_path / "stopped.py").write_text(STOPPED)
    done = subprocess.run(
        [sys.executable, "stopped.py", str(digit_shards), "mlp", "10", "25"],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    assert done.stdout == "[10]\n[25]\n", done.stderr[-4000:]
