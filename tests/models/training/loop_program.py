"""Trains in one process on one or two replicas, then evaluates with Keras too.

python loop_program.py SHARDS RUN_DIR REPLICAS MODEL [VALIDATION_SHARDS]  ->  one line of JSON
"""

import json
import sys

import keras
import numpy as np
import tensorflow as tf

from tenfold.data.reading.dataset import worker_dataset
from tenfold.data.reading.read_options import WorkerPlace
from tenfold.models.train_config import TrainConfig
from tenfold.models.training.loop import train
from tenfold.models.training.reporting.reporter import NullReporter

SHARDS, RUN_DIR, REPLICAS, MODEL = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
# The only split of the other shards is their train.
OTHER = sys.argv[5] if len(sys.argv) > 5 else ""


def strategy() -> tf.distribute.Strategy:
    if REPLICAS == 1:
        return tf.distribute.get_strategy()
    cpu = tf.config.list_physical_devices("CPU")[0]
    parts = [tf.config.LogicalDeviceConfiguration()] * REPLICAS
    tf.config.set_logical_device_configuration(cpu, parts)
    return tf.distribute.MirroredStrategy([f"CPU:{index}" for index in range(REPLICAS)])


def by_keras(model: keras.Model) -> dict[str, float]:
    """Return the metrics of `model.evaluate` on the records without the padding."""
    images, labels = [], []
    for x, y, weight in worker_dataset(
        OTHER or SHARDS,
        split="train" if OTHER else "validation",
        global_batch_size=64,
        training=False,
    ):
        real = weight.numpy() > 0
        images.append(x.numpy()[real])
        labels.append(y.numpy()[real])
    x, y = np.concatenate(images), np.concatenate(labels)
    return {**model.evaluate(x, y, batch_size=64, verbose=0, return_dict=True), "records": len(x)}


config = TrainConfig(
    SHARDS, RUN_DIR, model=MODEL, epochs=1, seed=3, steps_per_execution=10,
    validation_shards=OTHER, working_dir=sys.path[0],
)  # fmt: skip
result = train(config, strategy=strategy(), place=WorkerPlace(), reporter=NullReporter())
model = keras.models.load_model(result.model_path)
print(json.dumps({"ours": result.metrics, "keras": by_keras(model), "steps": result.steps}))
