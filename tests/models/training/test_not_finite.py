"""What a run does about a loss, gradient or weight that is not finite."""

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tenfold.models.training.reporting.not_finite import NotFiniteFinding

PROGRAM = Path(__file__).with_name("not_finite_program.py")


@pytest.mark.slow
def test_not_finite_values_are_named(
    digit_shards: Path, tmp_path: Path, read_metrics: Any
) -> None:
    done = subprocess.run(
        [sys.executable, PROGRAM, digit_shards, tmp_path],
        capture_output=True, text=True, check=False, timeout=230,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    results = json.loads(done.stdout.splitlines()[-1])

    (found,) = results["poisoned"]["found"]
    assert (found["what"], found["action"]) == ("loss", "fail")
    assert "output of layer 'poison' (Poison), for 1 of the 64 records" in found["where"]
    assert len(found["records"]) == 1
    assert found["records"][0] in results["offending"]
    assert results["poisoned"]["error"] == found["sentence"]
    losses = [line["loss"] for line in read_metrics(tmp_path / "poisoned")]
    assert len(losses) == found["step"], "the steps before it and itself"
    assert [loss == loss for loss in losses] == [True] * (len(losses) - 1) + [False]

    (found,) = results["fail"]["found"]
    assert (found["what"], found["step"], len(found["records"])) == ("gradient", 25, 64)
    assert found["where"] == "first in that of 'hidden/bias'"
    assert not (tmp_path / "fail" / "model.keras").exists()
    assert not list((tmp_path / "fail").glob("checkpoints/*"))

    (found,) = results["stop"]["found"]
    assert (found["step"], found["epoch"], found["kept_step"]) == (30, 1, 25)
    assert "'bomb' (Bomb), for 64 of the 64 records" in found["where"]
    assert results["stop"]["error"] == ""
    saved, checkpoint = results["kernels"]
    assert saved == checkpoint

    (found,) = results["nothing_kept"]["found"]
    assert "no checkpoint" in results["nothing_kept"]["error"]
    assert not (tmp_path / "nothing_kept" / "model.keras").exists()

    found = results["skip"]["found"]
    assert {(each["what"], each["action"]) for each in found} == {("loss", "skip")}
    for each in found:
        assert set(each["records"]) & set(results["offending"])
        assert len(each["records"]) == 64
    metrics = read_metrics(tmp_path / "skip")
    lines = [line for line in metrics if line["kind"] == "step"]
    skipped = {line["step"] for line in lines if line.get("skipped")}
    assert skipped == {each["step"] for each in found}
    assert len(lines) == 50
    kept = [line["loss"] for line in lines if not line.get("skipped")]
    assert all(loss == loss for loss in kept)
    assert kept[-1] < kept[0]
    second = [line["loss"] for line in lines if line["epoch"] and not line.get("skipped")]
    last = metrics[-1]
    assert (last["kind"], last["loss"]) == ("epoch", pytest.approx(statistics.fmean(second), 1e-5))
    assert results["skip"]["is_saved_finite"]
    norms = [line["gradient_norm"] for line in lines if "gradient_norm" in line]
    assert len(norms) == 50
    assert next(line["learning_rate"] for line in lines if "learning_rate" in line) > 0

    found = results["hopeless"]["found"]
    assert [each["step"] for each in found] == list(range(1, 22))
    assert (found[-1]["in_a_row"], found[-1]["action"]) == (21, "skip")
    assert "as are the 20 steps before it" in results["hopeless"]["error"]

    (found,) = results["ignore"]["found"]
    assert (found["step"], found["where"]) == (30, "")
    assert (tmp_path / "ignore" / "model.keras").exists()


@pytest.mark.parametrize(
    ("finding", "sentence"),
    [
        (
            NotFiniteFinding(7, 0, "loss", "fail", ("a record 3",), "first in feature 'x'"),
            "the loss of step 7 (epoch 1) is not finite: first in feature 'x'; records: "
            "a record 3; look at these records, lower --learning_rate, or give --clip_norm "
            "(--on_nan=stop keeps the newest checkpoint)",
        ),
        (
            NotFiniteFinding(7, 1, "weights", "stop", tuple("abcd"), kept_step=5),
            "the weights of step 7 (epoch 2) are not finite; records: a, b, c, …; the model of "
            "step 5 is kept (--on_nan=stop)",
        ),
    ],
)
def test_sentence_names_step_place_and_outcome(finding: NotFiniteFinding, sentence: str) -> None:
    assert finding.sentence() == sentence
