"""Schedules, clipping, class weights, precision, XLA and callbacks of a run."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import pytest

from tenfold.data.errors import UserError
from tenfold.data.reading.read_options import WorkerPlace
from tenfold.models.train_config import TrainConfig
from tenfold.models.training import loop as train
from tenfold.models.training.gradients.optimizer import balanced_weights, tune_optimizer

PROGRAM = Path(__file__).with_name("tuned_program.py")


def tuned(total_steps: int = 100, **options: Any) -> keras.Model:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.5, clipvalue=9.0), "mse")
    tune_optimizer(model, TrainConfig("shards", "run", **options), total_steps=total_steps)
    return model


# schedule, warm-up, the learning rate of 0.5 at steps 0, 10, 55 and 100 of 100
SCHEDULES = [
    ("constant", 0, [0.5, 0.5, 0.5, 0.5]),
    ("linear", 0, [0.5, 0.45, 0.225, 0.0]),
    ("cosine", 0, [0.5, 0.48776, 0.21089, 0.0]),
    ("cosine", 10, [0.0, 0.5, 0.25, 0.0]),
]


@pytest.mark.parametrize(("schedule", "warmup", "expected"), SCHEDULES)
def test_schedule_gives_learning_rates(schedule: str, warmup: int, expected: list[float]) -> None:
    optimizer = tuned(schedule=schedule, warmup_steps=warmup).optimizer
    rates = []
    for step in (0, 10, 55, 100):
        optimizer.iterations.assign(step)
        rates.append(float(optimizer.learning_rate))
    assert rates == pytest.approx(expected, abs=1e-4)


def test_given_rate_and_norm_replace_those_of_the_model() -> None:
    optimizer = tuned(learning_rate=0.125, clip_norm=2.0).optimizer
    assert float(optimizer.learning_rate) == 0.125
    assert (optimizer.global_clipnorm, optimizer.clipvalue) == (2.0, None)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"schedule": "linear", "warmup_steps": 5}, "needs --schedule=cosine"),
        ({"schedule": "cosine", "warmup_steps": 100}, "only 100 steps"),
        ({"clip_norm": 1.0, "precision": "mixed_float16"}, "mixed_bfloat16"),
    ],
)
def test_contradicting_settings_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        tuned(**options)


def test_balanced_weights() -> None:
    assert balanced_weights((30, 10, 0), split="train") == pytest.approx((2 / 3, 2.0, 0.0))
    with pytest.raises(UserError, match="have no class labels"):
        balanced_weights((), split="train")


# worker, --checkpoint_every in seconds, seconds since the last checkpoint, due
DUE = [
    (0, 30.0, 29.9, False),
    (0, 30.0, 30.0, True),
    (1, 30.0, 99.0, False),  # only the chief requests a checkpoint
    (0, 0.0, 99.0, False),  # the flag is not given
]


@pytest.mark.parametrize(("worker", "every_s", "passed_s", "due"), DUE)
def test_chief_requests_checkpoints_by_time(
    monkeypatch: pytest.MonkeyPatch, worker: int, every_s: float, passed_s: float, due: bool
) -> None:
    run: Any = object.__new__(train._Run)
    run.session = SimpleNamespace(place=WorkerPlace(worker, 2), last_save=1000.0)
    run.config = TrainConfig("shards", "run", checkpoint_every_s=every_s)
    clock = SimpleNamespace(monotonic=lambda: 1000.0 + passed_s)
    monkeypatch.setattr(train, "time", clock)
    assert run._is_save_due() is due


# Relative tolerance between the losses of one and of two workers: gradients are rounded to 8 or
# 11 bits for half a batch instead of a whole batch, and 75 steps of Adam accumulate the errors.
TOLERANCE = 0.02

COMMON = {"epochs": 3, "schedule": "cosine", "warmup_steps": 5, "class_weights": "balanced"}
BFLOAT16 = {"learning_rate": 0.001, "clip_norm": 1.0, "jit_compile": True}
RUNS: dict[str, dict[str, Any]] = {
    "long": {"epochs": 7},  # the first one: TensorFlow counts what all runs trace
    "callbacks": {"epochs": 5, "callbacks": ["own_models.py:StopAfterTwo"]},
    "bfloat16": {**COMMON, "precision": "mixed_bfloat16", **BFLOAT16},
    "float16": {**COMMON, "precision": "mixed_float16"},
}


@dataclass(frozen=True)
class InOneProcess:
    """A training without a launch: its run directory, its result and its output."""

    run_dir: Path
    result: dict[str, Any]
    output: str
    errors: str


@pytest.fixture(scope="module")
def runs(digit_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, InOneProcess]:
    """All of RUNS; one process starts TensorFlow once for all of them."""
    folder = tmp_path_factory.mktemp("one")
    arguments = [f"{folder / name}:{json.dumps(options)}" for name, options in RUNS.items()]
    command = [sys.executable, str(PROGRAM), str(digit_shards), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=220)
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, InOneProcess] = {}
    out, err = done.stdout, done.stderr
    for name in RUNS:
        output, _, out = out.partition("RESULT")
        line, _, out = out.partition("\n")
        errors, _, err = err.partition("RESULT")
        found[name] = InOneProcess(folder / name, json.loads(line), output, errors)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_all_options_at_once_on_one_and_two_workers(
    tenfold: Any, digit_shards: Path, tmp_path: Path, read_metrics: Any,
    runs: dict[str, InOneProcess], dtype: str,
) -> None:  # fmt: skip
    options, result = RUNS[dtype], runs[dtype].result
    assert result["policy"] == dtype
    assert result["rate"] == pytest.approx(0.0, abs=1e-6)
    assert result["metrics"]["val_accuracy"] > 0.85

    flags = [f"--{name}={value}" for name, value in options.items()]
    flags += [f"--shards={digit_shards}", "--model=mlp", "--steps_per_execution=10"]
    # An interval that is over at each call of steps: the chief requests, both workers save.
    flags += ["--num_workers=2", "--checkpoint_every=0.000001s"]
    done = tenfold("launch", *flags, f"--run_dir={tmp_path / 'two'}")
    assert done.status == 0, done.err[-3000:]
    one, two = read_metrics(runs[dtype].run_dir), read_metrics(tmp_path / "two")
    losses = [line["loss"] for line in two]
    assert losses == pytest.approx([line["loss"] for line in one], rel=TOLERANCE)
    assert max(losses) > 5 * min(losses), "the comparison cannot fail"
    receipts = [line["receipt"]["exact"] for line in two if line["kind"] == "epoch"]
    assert receipts == [True] * 3
    history = (tmp_path / "two" / "history.jsonl").read_text().splitlines()
    saved = [line for line in map(json.loads, history) if line["kind"] == "checkpoint"]
    assert [line["step"] for line in saved] == [10, 20, 25, 35, 45, 50, 60, 70, 75]


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_overflow_on_one_worker_skips_the_step_on_all(
    tenfold: Any, digit_shards: Path, tmp_path: Path, read_metrics: Any
) -> None:
    model = Path(__file__).parent.with_name("own_models.py")
    flags = [f"--shards={digit_shards}", "--num_workers=2", f"--model={model}:overflowing"]
    done = tenfold("launch", *flags, "--epochs=2", f"--run_dir={tmp_path / 'run'}")
    assert done.status == 0, done.err[-3000:]
    losses = [line["loss"] for line in read_metrics(tmp_path / "run")]
    assert len(losses) == 52
    assert losses[-1] < 0.5 * losses[0], losses


@pytest.mark.slow
def test_seven_epochs_do_not_warn_of_retracing(runs: dict[str, InOneProcess]) -> None:
    found = runs["long"]
    assert found.result["epochs"] == 7
    assert "retracing" not in found.errors


@pytest.mark.slow
def test_callbacks_get_logs_and_stop_training(runs: dict[str, InOneProcess]) -> None:
    found = runs["callbacks"]
    assert found.result["epochs"] == 2
    assert found.result["steps"] == 50
    logs = "accuracy, loss, val_accuracy, val_loss"
    batches = ["batch 9", "batch 19", "batch 24"]
    calls = ["train", *batches, f"epoch 0: {logs}", *batches, f"epoch 1: {logs}"]
    assert f"CALLS {calls}" in found.output
