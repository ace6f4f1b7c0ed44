"""`evaluate` and `predict` with real workers: figures of the training, beside it, after kills."""

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tenfold.launcher.worker.python_argv import module_argv


@dataclass(frozen=True)
class Followed:
    """A training of three epochs, and the evaluation that ran beside it."""

    run_dir: Path
    beside: Path


@pytest.fixture(scope="module")
def followed(
    tenfold: Callable[..., Any],
    until: Callable[..., None],
    digit_shards: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Followed:
    folder = tmp_path_factory.mktemp("followed")
    run_dir, beside = folder / "run", folder / "beside"
    shards = f"--shards={digit_shards}"
    flags = ["launch", shards, "--epochs=3", "--num_workers=1", f"--run_dir={run_dir}"]
    with open(folder / "log", "w") as log:
        training = subprocess.Popen(module_argv("tenfold", flags), stdout=log, stderr=log)
        try:
            until((run_dir / "job.json").exists)
            done = tenfold(
                "evaluate", "--follow", f"--model={run_dir}", shards, "--num_workers=2",
                f"--run_dir={beside}",
            )  # fmt: skip
            assert training.wait(timeout=200) == 0, (folder / "log").read_text()
        finally:
            training.kill()
            training.wait()
    assert done.status == 0, done.err
    return Followed(run_dir, beside)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_evaluation_beside_a_training_has_its_figures(
    followed: Followed, read_metrics: Callable[[Path], list[dict[str, Any]]]
) -> None:
    evaluated = [json.loads(line) for line in (followed.beside / "evaluations.jsonl").open()]
    trained = {
        line["epoch"] + 1: line["metrics"]
        for line in read_metrics(followed.run_dir)
        if line["kind"] == "epoch"
    }
    assert evaluated[-1]["epoch"] == 3
    for line in evaluated:
        expected = trained[line["epoch"]]
        assert line["loss"] == pytest.approx(expected["val_loss"], rel=1e-4)
        assert line["metrics"]["accuracy"] == pytest.approx(expected["val_accuracy"])
    result = json.loads((followed.beside / "result.json").read_text())
    assert result["final"]["receipt"]["exact"]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_prediction_survives_a_kill_and_goes_on_with_other_workers(
    tenfold: Callable[..., Any], followed: Followed, digit_shards: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    flags = (
        f"--model={followed.run_dir}", f"--shards={digit_shards}", "--split=train",
        f"--output={output}", "--keep=label", "--global_batch_size=64",
    )  # fmt: skip
    killed = tenfold(
        "predict", *flags, "--num_workers=2", "--inject=kill:worker=1,step=2",
        f"--run_dir={tmp_path}/killed",
    )  # fmt: skip
    assert killed.status == 1
    assert "killed by SIGKILL" in killed.out
    assert not (output / "_predictions.json").exists()
    done = tenfold("predict", *flags, "--num_workers=1", f"--run_dir={tmp_path}/rest")
    assert done.status == 0, done.err
    listed = json.loads((output / "_predictions.json").read_text())
    rows = pq.read_table(output).to_pydict()
    places = set(zip(rows["shard"], rows["index"], strict=True))
    assert len(places) == len(rows["index"]) == listed["records"]
    right = [
        max(range(10), key=outputs.__getitem__) == label
        for outputs, label in zip(rows["prediction"], rows["label"], strict=True)
    ]
    assert sum(right) > 0.8 * len(right)
