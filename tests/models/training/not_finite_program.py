"""Trains models whose values are not finite at a known place, in one process.

python not_finite_program.py SHARDS FOLDER  ->  one line of JSON: the finding of each run
"""

import io
import json
import os
import sys
import zipfile
from dataclasses import asdict
from typing import Any

import h5py
import numpy as np
import tensorflow as tf

from tenfold.data.reading.read_options import WorkerPlace
from tenfold.models.train_config import TrainConfig
from tenfold.models.training.loop import train
from tenfold.models.training.reporting.not_finite import NotFiniteError
from tenfold.models.training.reporting.reporter import NullReporter

SHARDS, FOLDER = sys.argv[1:]


def pixel_sums() -> dict[str, float]:
    """Return the sum of the pixels of every training record, by its name."""
    features = {"image": tf.io.FixedLenFeature([], tf.string)}
    sums = {}
    for path in sorted(tf.io.gfile.glob(f"{SHARDS}/train-*")):
        for index, record in enumerate(tf.data.TFRecordDataset(path)):
            image = tf.io.decode_png(tf.io.parse_single_example(record, features)["image"])
            sums[f"{os.path.basename(path)} record {index}"] = float(image.numpy().sum())
    return sums


class Findings(NullReporter):
    def __init__(self) -> None:
        self.found: list[dict[str, Any]] = []

    def not_finite(self, finding) -> None:
        self.found.append({**asdict(finding), "sentence": finding.sentence()})


def run(name: str, model: str, **settings) -> dict:
    config = TrainConfig(
        SHARDS, f"{FOLDER}/{name}", model=f"own_models.py:{model}", steps_per_execution=10,
        working_dir=sys.path[0], **settings,
    )  # fmt: skip
    findings, error = Findings(), ""
    try:
        train(
            config, strategy=tf.distribute.get_strategy(), place=WorkerPlace(), reporter=findings
        )
    except NotFiniteError as caught:
        error = str(caught)
    return {"found": findings.found, "error": error}


def saved_values(name: str) -> list[float]:
    """Return all values of the model that a run has saved."""
    with zipfile.ZipFile(f"{FOLDER}/{name}/model.keras") as model:
        weights = io.BytesIO(model.read("model.weights.h5"))
    found: list[float] = []
    with h5py.File(weights) as file:
        file.visititems(
            lambda _, item: found.extend(item[()].ravel()) if hasattr(item, "shape") else None
        )
    return [float(value) for value in found]


def kept_kernels() -> tuple[list[float], list[float]]:
    """Return the kernel of the layer `out` in the saved model, and in the kept checkpoint."""
    with zipfile.ZipFile(f"{FOLDER}/stop/model.keras") as model:
        weights = io.BytesIO(model.read("model.weights.h5"))
    found = {}
    with h5py.File(weights) as file:
        file.visititems(
            lambda path, item: found.update({path: item[()]}) if hasattr(item, "shape") else None
        )
    (saved,) = (v for path, v in found.items() if v.shape == (32, 10) and "optimizer" not in path)
    with np.load(f"{FOLDER}/stop/checkpoints/checkpoint-00001-00000000.npz") as checkpoint:
        paths = json.loads(checkpoint["header"].tobytes())["paths"]
        kernel = checkpoint[f"v{paths.index('out/kernel'):05d}"]
    return saved.ravel().tolist(), kernel.ravel().tolist()


sums = pixel_sums()
highest = sorted(sums.values())[-3]
os.environ["POISON_SUM"] = str(highest)
results: dict[str, Any] = {
    "poisoned": run("poisoned", "poisoned"),
    "fail": run("fail", "bad_gradient"),
    "stop": run("stop", "bad_loss", epochs=3, on_nan="stop"),
    "nothing_kept": run("nothing_kept", "bad_gradient", on_nan="stop"),
    "skip": run("skip", "poisoned_statistics", epochs=2, on_nan="skip"),
    "hopeless": run("hopeless", "always_nan", on_nan="skip"),
    "ignore": run("ignore", "bad_loss", epochs=2, on_nan="ignore"),
}
results["offending"] = [name for name, value in sums.items() if value >= highest]
results["skip"]["is_saved_finite"] = bool(np.isfinite(saved_values("skip")).all())
results["kernels"] = kept_kernels()
print(json.dumps(results))
