"""`tenfold.models.keras_fit`: Keras 3's methods on two workers compared with one process."""

import functools
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tenfold.launcher.worker.python_argv import module_argv

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

# The form of the Keras multi-worker tutorial: the model is made and compiled in the strategy's
# scope, then fit, evaluate and predict are called on every worker.
PROGRAM = """
import json, os, sys
import numpy as np
import tensorflow as tf

if sys.argv[1] == "one":
    strategy = tf.distribute.get_strategy()
else:
    from tenfold.models import keras_fit

    keras_fit.repair()
    keras_fit.repair()
    if sys.argv[1] == "four":
        from two_devices import use_two_devices

        use_two_devices()
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
import keras

keras.utils.set_random_seed(1)
rng = np.random.default_rng(0)
inputs = rng.normal(size=(96, 8)).astype("float32")
labels = (inputs.sum(axis=1) > 0).astype("int64")
with strategy.scope():
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((8,)), layers.Dense(16, "relu"), layers.Dropout(0.0), layers.Dense(2)]
    )
    model.compile(
        optimizer=keras.optimizers.Adam(0.05),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )


class Count(keras.callbacks.Callback):
    batches = 0

    def on_train_batch_end(self, batch, logs=None):
        self.batches += 1


count = Count()
C, worker = keras.callbacks, os.environ.get("TENFOLD_WORKER_INDEX", "0")
writers = [
    C.ModelCheckpoint(f"model-{worker}.keras"),
    C.CSVLogger(f"log-{worker}.csv"),
    C.BackupAndRestore("backup"),
]
if sys.argv[1] == "four":
    writers = []
history = model.fit(
    inputs, labels, batch_size=32, epochs=4, shuffle=False, verbose=0, callbacks=[count, *writers],
    validation_data=(inputs[:40], labels[:40]), validation_batch_size=16,
)
result = {
    "replicas": strategy.num_replicas_in_sync,
    "history": history.history,
    "batches": count.batches,
    "evaluate": model.evaluate(inputs, labels, batch_size=32, verbose=0, return_dict=True),
    "predict": np.asarray(model.predict(inputs[:40], batch_size=16, verbose=0)).tolist(),
}
print("RESULT" + json.dumps(result), flush=True)
if sys.argv[1] == "two":
    import overflow  # in the same process, to start TensorFlow once
os._exit(0)
"""

# Only one worker reads the example whose gradients overflow in float16.
OVERFLOW = """
import json
import numpy as np
import keras
import tensorflow as tf
from __main__ import strategy

keras.mixed_precision.set_dtype_policy("mixed_float16")
inputs = np.random.default_rng(0).normal(size=(96, 8)).astype("float32")
labels = inputs.sum(axis=1, keepdims=True)
inputs[40] = 60000


class OwnStep(keras.Sequential):
    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x=x, y=y, y_pred=self(x, training=True))
            scaled = self.optimizer.scale_loss(loss)
        variables = self.trainable_variables
        self.optimizer.apply(tape.gradient(scaled, variables), variables)
        return {"loss": loss}


def fitted(kind):
    keras.utils.set_random_seed(1)
    with strategy.scope():
        dense = keras.layers.Dense(1, dtype="float32")
        model = kind([keras.Input((8,)), keras.layers.Dense(16, "relu"), dense])
        model.compile(keras.optimizers.SGD(0.01), "mse")
    model.fit(inputs, labels, batch_size=32, epochs=2, shuffle=False, verbose=0)
    sums = [float(np.sum(weights)) for weights in model.get_weights()]
    return [sums, int(model.optimizer.inner_optimizer.iterations.numpy())]


print("OVERFLOW" + json.dumps([fitted(keras.Sequential), fitted(OwnStep)]), flush=True)
"""


def result_in(text, name="RESULT"):
    return json.loads(text.split(name)[1].splitlines()[0])


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    (folder / "program.py").write_text(PROGRAM)
    command = [sys.executable, "program.py", "one"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return result_in(done.stdout)


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """Launch the program on two workers, once for each number of replicas; return its folder."""

    @functools.cache
    def launch(replicas):
        folder = tmp_path_factory.mktemp(replicas)
        (folder / "program.py").write_text(PROGRAM)
        (folder / "overflow.py").write_text(OVERFLOW)
        shutil.copy(Path(__file__).with_name("two_devices.py"), folder)
        command = module_argv("tenfold", ["launch", "--num_workers=2", "--run_dir=run"])
        done = subprocess.run(
            [*command, "--", sys.executable, "program.py", replicas],
            cwd=folder, capture_output=True, text=True, timeout=200,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        return folder

    return launch


@pytest.mark.parametrize("replicas", ["two", "four"])
def test_keras_fit_on_two_workers_equals_one_process(one_process, launched, replicas):
    """Each worker has one replica, or two."""
    folder, one = launched(replicas), one_process
    written = {path.name for path in folder.glob("*-?.*")}
    assert written == ({"model-0.keras", "log-0.csv"} if replicas == "two" else set())
    for worker in range(2):
        two = result_in((folder / "run/logs" / f"worker-{worker}.log").read_text())
        assert two["replicas"] == {"two": 2, "four": 4}[replicas]
        assert two["batches"] == one["batches"] == 12
        assert two["history"].keys() == one["history"].keys()
        for name in one["history"]:
            assert two["history"][name] == pytest.approx(one["history"][name], rel=1e-4)
        assert two["evaluate"] == pytest.approx(one["evaluate"], rel=1e-4)
        assert len(two["predict"]) == 40
        for ours, theirs in zip(two["predict"], one["predict"], strict=True):
            assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-4)


def test_keras_fit_overflow_skips_the_step_on_all_workers(launched):
    """With Keras's own training step, and with a training step of the model."""
    logs = [(launched("two") / "run/logs" / f"worker-{n}.log").read_text() for n in range(2)]
    first, second = (result_in(log, "OVERFLOW") for log in logs)
    assert first == second
    for sums, applied in first:
        assert all(math.isfinite(value) for value in sums)
        assert applied == 4, "two of the six steps have an example that overflows"


def test_untested_keras_version_is_refused(monkeypatch):
    # Imported here: the other tests of this file need no TensorFlow in their own process.
    import keras

    from tenfold.models import keras_fit

    monkeypatch.setattr(keras, "__version__", "3.99.0")
    with pytest.raises(ValueError, match=r"3\.99\.0"):
        keras_fit.repair()
