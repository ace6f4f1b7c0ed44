"""Models that do not fit the records are refused in one line, before the first step."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import pytest
import tensorflow as tf

from tenfold.data.errors import UserError
from tenfold.data.format.manifest import Feature
from tenfold.models.model_spec import ModelSpec
from tenfold.models.training.check_model import check_model, check_outputs

PROGRAM = """
import json, sys
import keras
import tensorflow as tf
from tenfold.data.errors import UserError
from tenfold.data.reading.read_options import WorkerPlace
from tenfold.models.file_callbacks import callbacks_of_worker
from tenfold.models.train_config import TrainConfig
from tenfold.models.training.callbacks import load_callbacks
from tenfold.models.training.session import Session

def build(name):
    shards, run_dir = sys.argv[1:3]
    config = TrainConfig(shards, run_dir, model=f"nets.py:{name}", working_dir=sys.path[0])
    try:
        Session(config, strategy=tf.distribute.get_strategy(), place=WorkerPlace(0, 2))
    except UserError as error:
        return str(error)
    return "fits"

results = {name: build(name) for name in sys.argv[3:]}
c = keras.callbacks
made = [c.CSVLogger("a"), c.EarlyStopping(), c.BackupAndRestore("b"), c.ModelCheckpoint("c.keras")]
on_chief = callbacks_of_worker(made, is_chief=True)
on_other = callbacks_of_worker(made, is_chief=False)
results["chief"] = [type(callback).__name__ for callback in on_chief]
results["other"] = [type(callback).__name__ for callback in on_other]
results["backup"] = on_other[1].on_epoch_end(0, {})
try:
    load_callbacks(["nets.py:backup"], working_dir=sys.path[0], is_chief=True)
except UserError as error:
    results["trainer"] = str(error)
print(json.dumps(results))
"""

NETS = """
import keras

L = keras.layers


def net(shape, units, loss="sparse_categorical_crossentropy", first=()):
    pooled = [*first, L.Conv2D(4, 3, padding="same"), L.GlobalAveragePooling2D()]
    model = keras.Sequential([keras.Input(shape), *pooled, L.Dense(units, "sigmoid")])
    model.compile("adam", loss)
    return model


def backup(): return keras.callbacks.BackupAndRestore("b")
def large(spec): return net((224, 224, 1), 10)
def colour(spec): return net((None, None, 3), 10)
def two(spec): return net(spec.image_shape, 2)
def one_hot(spec): return net(spec.image_shape, 10, keras.losses.CategoricalCrossentropy())
def binary(spec): return net(spec.image_shape, 1, "binary_crossentropy")
def small(spec): return net(spec.image_shape, 10, first=[L.Conv2D(4, 5), L.Conv2D(4, 5)])
def ranks(spec): return net(spec.image_shape, 10, lambda y, p: p[:, :3] @ p[:, :2])
def more(spec): return net(spec.image_shape, 100)
def any_size(spec): return net((None, None, 1), 10)


class Subclass(keras.Model):
    def __init__(self):
        super().__init__()
        self.flat, self.dense = L.Flatten(), L.Dense(2)

    def call(self, x):
        return self.dense(self.flat(x))


def subclass(spec): return Subclass()
"""

MESSAGES = {
    "large": "takes images of 224 × 224 × 1, these are 8 × 8 × 1: give --image_size=224, or make",
    "colour": "takes images of any × any × 3, these are 8 × 8 × 1: make its Input from spec.image",
    "two": "has 2 outputs for 10 classes: make the last layer with spec.num_classes units",
    "one_hot": "which takes one-hot labels; these labels are class indices: compile it with",
    "binary": "binary_crossentropy, which takes 2 classes, and there are 10",
    "small": "images of 8 × 8 × 1 are too small for model 'nets.py:small'",
    "ranks": "does not fit its outputs and the labels: Dimensions must be equal",
    "more": "fits",
    "any_size": "fits",
    "subclass": "fits",
}


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (["history"], "feature 'history' is ragged, of shape any: give --pad=history:N"),
        (["history", "price"], "has an input 'age', and it is fed history, price"),
    ],
    ids=["ragged", "missing"],
)
def test_model_that_is_fed_something_else_is_refused(inputs: list[str], message: str) -> None:
    specs = {
        "history": tf.RaggedTensorSpec([None, None], tf.int64, 1),
        "price": tf.TensorSpec([None], tf.float32),
    }
    lone = len(inputs) == 1
    x: Any = specs["history"] if lone else specs
    features = tuple(Feature(name, "int64", (None,)) for name in inputs)
    spec = ModelSpec(features, None, 0, 8, 1, 1, seed=0, x=x, y=tf.TensorSpec([None], tf.int64))
    name = "anything" if lone else "age"
    entry = keras.Input((5,), name=name)
    other = keras.Input((), name="price")
    model = keras.Model(entry if lone else {name: entry, "price": other}, entry)
    with pytest.raises(UserError, match=message):
        check_model(model, spec, name="own")


def test_shares_of_classes_fit_a_loss_of_one_hot_labels() -> None:
    image, shares = (8, 8, 1), tf.TensorSpec([None, 10], tf.float32)
    model = keras.Sequential([keras.Input(image), keras.layers.Flatten(), keras.layers.Dense(10)])
    model.compile("adam", "categorical_crossentropy")
    x = tf.TensorSpec([None, *image], tf.float32)
    features = (Feature("image", "image", image),)
    check_model(model, ModelSpec(features, image, 10, 8, 1, 1, seed=0, x=x, y=shares), name="own")


def test_output_without_an_axis_is_refused() -> None:
    """Keras would take the mean of such losses over the records, whatever their weights."""
    with pytest.raises(UserError, match=r"give it the shape \[records, 1\]"):
        check_outputs({"click": tf.zeros([4])}, "own")
    check_outputs([tf.zeros([4, 1])], "own")


@pytest.mark.slow
def test_models_and_callbacks_are_checked_before_training(
    digit_shards: Path, tmp_path: Path
) -> None:
    (tmp_path / "nets.py").write_text(NETS)
    (tmp_path / "program.py").write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, "program.py", digit_shards, tmp_path / "run", *MESSAGES],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    results = json.loads(done.stdout.splitlines()[-1])
    for name, words in MESSAGES.items():
        assert words in results[name], name
        assert "\n" not in results[name]
    assert results["chief"] == [
        "CSVLogger",
        "EarlyStopping",
        "BackupAndRestore",
        "ModelCheckpoint",
    ]
    assert results["other"] == ["EarlyStopping", "BackupAndRestore"]
    assert results["backup"] is None
    assert "the trainer saves and restores checkpoints itself" in results["trainer"]
