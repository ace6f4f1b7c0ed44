"""An unchanged tf_keras (Keras 2) program on two workers compared with one process."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

# The Keras multi-worker tutorial, rewritten; it does not import Tenfold.
PROGRAM = """
import json
import numpy as np
import tensorflow as tf

strategy = tf.distribute.MultiWorkerMirroredStrategy()
tf.keras.utils.set_random_seed(1)
rng = np.random.default_rng(0)
inputs = rng.normal(size=(96, 8)).astype("float32")
labels = (inputs.sum(axis=1) > 0).astype("int64")
options = tf.data.Options()
options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
batches = tf.data.Dataset.from_tensor_slices((inputs, labels)).batch(32).with_options(options)
with strategy.scope():
    model = tf.keras.Sequential(
        [tf.keras.layers.Input((8,)), tf.keras.layers.Dense(16, "relu"), tf.keras.layers.Dense(2)]
    )
    model.compile(
        optimizer=tf.keras.optimizers.Adam(0.05),
        loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
history = model.fit(batches, epochs=4, verbose=0, validation_data=batches)
used = {"keras": type(model).__module__, "replicas": strategy.num_replicas_in_sync}
print("RESULT" + json.dumps({**used, **history.history}), flush=True)
"""


def result_in(text: str) -> Any:
    return json.loads(text.split("RESULT")[1].splitlines()[0])


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_tf_keras_fit_on_two_workers_equals_one_process(tenfold: Any, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    legacy = {"TF_USE_LEGACY_KERAS": "1"}
    program = [sys.executable, "program.py"]
    alone = subprocess.run(
        program, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, **legacy}
    )
    assert alone.returncode == 0, alone.stderr[-3000:]
    done = tenfold(
        "launch", "--num_workers=2", "--run_dir=run", "--", *program, cwd=tmp_path, **legacy
    )
    assert done.status == 0, done.err[-3000:]
    one = result_in(alone.stdout)
    assert one["keras"].startswith("tf_keras.")
    for worker in range(2):
        two = result_in((tmp_path / "run/logs" / f"worker-{worker}.log").read_text())
        assert (one.pop("replicas", 1), two.pop("replicas")) == (1, 2)
        assert two.pop("keras") == one["keras"]
        for name in two:
            assert two[name] == pytest.approx(one[name], rel=1e-4), name
    assert one["loss"][-1] < 0.9 * one["loss"][0], "the comparison cannot fail"
