"""Users' own TensorFlow programs under `tenfold launch`: success and failures."""

import json
import subprocess
import sys

import pytest

from tenfold.launcher.worker.python_argv import module_argv

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

# A custom training loop in the form of TensorFlow's multi-worker tutorials: the strategy reads
# TF_CONFIG, variables are made in its scope, and `run` and `reduce` are called on a distributed
# dataset in a tf.function.
PROGRAM = """
import os, sys
import numpy as np
import tensorflow as tf

strategy = tf.distribute.MultiWorkerMirroredStrategy()
index = strategy.cluster_resolver.task_id
rng = np.random.default_rng(0)
inputs = rng.normal(size=(64, 4)).astype("float32")
targets = inputs @ np.float32([[1.0], [2.0], [-1.0], [0.5]])

options = tf.data.Options()
options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
dataset = tf.data.Dataset.from_tensor_slices((inputs, targets)).batch(16).with_options(options)
batches = strategy.experimental_distribute_dataset(dataset)
with strategy.scope():
    weights = tf.Variable(tf.zeros((4, 1)))

@tf.function
def train_step(batch):
    def one(inputs, targets):
        with tf.GradientTape() as tape:
            error = tf.square(tf.matmul(inputs, weights) - targets)
            loss = tf.nn.compute_average_loss(error[:, 0], global_batch_size=16)
        gradient = tape.gradient(loss, weights)
        total = tf.distribute.get_replica_context().all_reduce("sum", gradient)
        weights.assign_sub(0.1 * total)
        return loss
    return strategy.reduce("sum", strategy.run(one, args=batch), axis=None)

for epoch in range(20):
    for batch in batches:
        loss = train_step(batch)
    if epoch == 2 and index == 1:
        exec(sys.argv[1])
print("loss", float(loss), flush=True)
"""


@pytest.fixture
def run_program(tmp_path):
    def run(trouble):
        (tmp_path / "program.py").write_text(PROGRAM)
        command = module_argv("tenfold", ["launch", "--num_workers=2"])
        done = subprocess.run(
            [*command, "--run_dir=run", "--", sys.executable, "program.py", trouble],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        return done, json.loads((tmp_path / "run" / "result.json").read_text())

    return run


def test_custom_loop_of_the_tutorial_succeeds(run_program, tmp_path):
    done, result = run_program("pass")
    assert done.returncode == 0, done.stderr[-3000:]
    assert result["state"] == "succeeded"
    lines = [(tmp_path / "run/logs" / f"worker-{n}.log").read_text() for n in range(2)]
    losses = [text.rsplit("loss ", 1)[1].split()[0] for text in lines]
    assert losses[0] == losses[1]
    assert float(losses[0]) < 0.01


@pytest.mark.parametrize(
    ("trouble", "error"),
    [
        ("raise ValueError('the cause')", "ValueError: the cause"),
        ("os._exit(0)", "exited with 0 before it was done"),
    ],
)
def test_first_failure_is_the_cause_not_the_loudest_error(run_program, trouble, error):
    """Worker 0 prints a long error about its lost peer; worker 1 prints little or nothing."""
    done, result = run_program(trouble)
    assert done.returncode == 1
    assert result["first_failure"]["worker"] == 1
    assert error in result["first_failure"]["error"]
    assert "Unavailable" not in result["first_failure"]["traceback"]
    assert all(failure["worker"] == 0 for failure in result["consequences"])
