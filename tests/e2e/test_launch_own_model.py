"""Failures of a user's model function, found before the workers start."""

import json
from pathlib import Path
from typing import Any

import pytest

MODEL = """
import data


def build(spec):
    return layer_of(data.LAYERS)


def layer_of(layers):
    return layers["no such layer"]


def two_outputs(spec):
    import keras

    inputs = keras.Input(spec.image_shape)
    outputs = keras.layers.Dense(2, "softmax")(keras.layers.Flatten()(inputs))
    return keras.Model(inputs, outputs)


def own_step(spec):
    import keras

    class Net(keras.Model):
        def train_step(self, data):
            return super().train_step(data)

    inputs = keras.Input(spec.image_shape)
    return Net(inputs, keras.layers.Dense(10, "softmax")(keras.layers.Flatten()(inputs)))
"""


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_wrong_model_ends_before_workers_start(
    tenfold: Any, digit_shards: Path, tmp_path: Path
) -> None:
    (tmp_path / "data.py").write_text("LAYERS = {}\n")
    (tmp_path / "net.py").write_text(MODEL)
    flags = (f"--shards={digit_shards}", "--num_workers=2", "--run_dir=run")
    wrong = tenfold("launch", *flags, "--model=net.py:two_outputs", cwd=tmp_path)
    assert wrong.status == 2, wrong.out
    assert wrong.err.count("has 2 outputs for 10 classes") == 1
    assert "Traceback" not in wrong.err
    assert not (tmp_path / "run" / "job.json").exists()
    uneven = ("--model=net.py:own_step", "--num_workers=3")
    refused = tenfold("launch", *flags, *uneven, cwd=tmp_path)
    assert refused.status == 2, refused.out
    assert "has a train_step of its own, which cannot weigh parts" in refused.err
    done = tenfold("launch", *flags, "--model=net.py:build", cwd=tmp_path)
    assert done.status == 1
    assert "KeyError: 'no such layer'" in done.out
    assert not (tmp_path / "run" / "model.keras").exists()
    assert not (tmp_path / "run" / "logs" / "worker-0.log").read_text(), "no worker was started"
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["state"] == "failed"
    frames = [line for line in result["first_failure"]["traceback"].splitlines() if "File" in line]
    assert len(frames) == 2, "only the frames of the user's code are shown"
    assert all(str(tmp_path / "net.py") in frame for frame in frames)
