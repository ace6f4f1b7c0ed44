"""Schedules, clipping, class weights, precision, XLA and callbacks, as they reach the model."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import pytest

from tenfold.data.errors import UserError
from tenfold.data.manifest import Split
from tenfold.models.config import TrainConfig
from tenfold.models.tuning import balanced_weights, tune_optimizer

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
def test_schedules(schedule: str, warmup: int, expected: list[float]) -> None:
    optimizer = tuned(schedule=schedule, warmup_steps=warmup).optimizer
    rates = []
    for step in (0, 10, 55, 100):
        optimizer.iterations.assign(step)
        rates.append(float(optimizer.learning_rate))
    assert rates == pytest.approx(expected, abs=1e-4)


def test_a_given_rate_and_norm_replace_the_models() -> None:
    optimizer = tuned(learning_rate=0.125, clip_norm=2.0).optimizer
    assert float(optimizer.learning_rate) == 0.125
    assert (optimizer.global_clipnorm, optimizer.clipvalue) == (2.0, None)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"schedule": "linear", "warmup_steps": 5}, "goes with --schedule=cosine"),
        ({"schedule": "cosine", "warmup_steps": 100}, "only 100 steps"),
        ({"clip_norm": 1.0, "precision": "mixed_float16"}, "mixed_bfloat16"),
    ],
)
def test_what_does_not_go_together(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        tuned(**options)


def test_balanced_weights() -> None:
    assert balanced_weights(Split("train", (), (30, 10, 0))) == pytest.approx((2 / 3, 2.0, 0.0))
    with pytest.raises(UserError, match="have no classes"):
        balanced_weights(Split("train", ()))


def run(shards: Path, run_dir: Path, **options: Any) -> tuple[dict[str, Any], str]:
    arguments = [sys.executable, str(PROGRAM), str(shards), str(run_dir), json.dumps(options)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1]), done.stdout


@pytest.mark.slow
def test_all_of_it_at_once_trains_and_loads(digit_shards: Path, tmp_path: Path) -> None:
    result, _ = run(
        digit_shards,
        tmp_path / "run",
        epochs=3,
        learning_rate=0.01,
        schedule="cosine",
        warmup_steps=5,
        clip_norm=1.0,
        class_weights="balanced",
        precision="mixed_bfloat16",
        jit_compile=True,
    )
    assert result["policy"] == "bfloat16"
    assert result["rate"] == pytest.approx(0.0, abs=1e-6)
    assert result["metrics"]["val_accuracy"] > 0.85


@pytest.mark.slow
def test_callbacks_hear_and_decide(digit_shards: Path, tmp_path: Path) -> None:
    result, said = run(
        digit_shards, tmp_path / "run", epochs=5, callbacks=["own_models.py:StopAfterTwo"]
    )
    assert result["epochs"] == 2
    assert result["steps"] == 50
    logs = "accuracy, loss, val_accuracy, val_loss"
    batches = ["batch 9", "batch 19", "batch 24"]
    told = ["train", *batches, f"epoch 0: {logs}", *batches, f"epoch 1: {logs}"]
    assert f"TOLD {told}" in said
