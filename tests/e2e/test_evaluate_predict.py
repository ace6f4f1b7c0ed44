"""`evaluate` and `predict` with real workers: figures of the training, beside it, after kills."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_evaluation_beside_a_training_ends_with_its_figures(
    tenfold: Callable[..., Any],
    start_tenfold: Callable[..., Any],
    until: Callable[..., None],
    read_metrics: Callable[[Path], list[dict[str, Any]]],
    digit_shards: Path,
    tmp_path: Path,
) -> None:
    run_dir, beside = tmp_path / "run", tmp_path / "beside"
    shards = f"--shards={digit_shards}"
    training = start_tenfold(
        "launch", shards, "--epochs=3", "--num_workers=1", f"--run_dir={run_dir}"
    )
    until((run_dir / "job.json").exists)
    followed = tenfold(
        "evaluate", "--follow", f"--model={run_dir}", shards, "--num_workers=2",
        f"--run_dir={beside}",
    )  # fmt: skip
    assert training.wait(timeout=200) == 0
    assert followed.status == 0, followed.err
    evaluated = [json.loads(line) for line in (beside / "evaluations.jsonl").open()]
    trained = {
        line["epoch"] + 1: line["metrics"]
        for line in read_metrics(run_dir)
        if line["kind"] == "epoch"
    }
    assert evaluated[-1]["epoch"] == 3
    for line in evaluated:
        expected = trained[line["epoch"]]
        assert line["loss"] == pytest.approx(expected["val_loss"], rel=1e-4)
        assert line["metrics"]["accuracy"] == pytest.approx(expected["val_accuracy"])
    result = json.loads((beside / "result.json").read_text())
    assert result["final"]["receipt"]["exact"]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_prediction_survives_a_kill_and_goes_on_with_other_workers(
    tenfold: Callable[..., Any], digit_shards: Path, tmp_path: Path
) -> None:
    shards = f"--shards={digit_shards}"
    done = tenfold("launch", shards, "--num_workers=1", f"--run_dir={tmp_path}/run")
    assert done.status == 0, done.err
    output = tmp_path / "out"
    flags = (
        f"--model={tmp_path}/run", shards, "--split=train", f"--output={output}", "--keep=label",
    )  # fmt: skip
    killed = tenfold(
        "predict", *flags, "--num_workers=2", "--inject=kill:worker=1,step=2",
        "--global_batch_size=64", f"--run_dir={tmp_path}/killed",
    )  # fmt: skip
    assert killed.status == 1
    assert "killed by SIGKILL" in killed.out
    assert not (output / "_predictions.json").exists()
    done = tenfold("predict", *flags, "--num_workers=3", f"--run_dir={tmp_path}/rest")
    assert done.status == 0, done.err
    listed = json.loads((output / "_predictions.json").read_text())
    rows = pq.read_table(output).to_pydict()
    places = set(zip(rows["shard"], rows["index"], strict=True))
    assert len(places) == len(rows["index"]) == listed["records"]
    right = [
        max(range(10), key=outputs.__getitem__) == label
        for outputs, label in zip(rows["prediction"], rows["label"], strict=True)
    ]
    assert sum(right) > 0.5 * len(right)
