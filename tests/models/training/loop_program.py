"""Trains in one process on one or two replicas, then evaluates with Keras too, several times.

python loop_program.py SHARDS '[RUN_DIR, REPLICAS, MODEL, VALIDATION_SHARDS or ""]' …  ->  for each
training one line of JSON
"""

import functools
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

SHARDS, *TRAININGS = sys.argv[1:]


@functools.cache  # two strategies would give the same keys to different collectives
def strategy_of(replicas: int) -> tf.distribute.Strategy:
    if replicas == 1:
        return tf.distribute.get_strategy()
    return tf.distribute.MirroredStrategy([f"CPU:{index}" for index in range(replicas)])


def by_keras(model: keras.Model, other: str) -> dict[str, float]:
    """Return the metrics of `model.evaluate` on the records without the padding."""
    images, labels = [], []
    for x, y, weight in worker_dataset(
        other or SHARDS,
        split="train" if other else "validation",  # the only split of the other shards
        global_batch_size=64,
        training=False,
    ):
        real = weight.numpy() > 0
        images.append(x.numpy()[real])
        labels.append(y.numpy()[real])
    x, y = np.concatenate(images), np.concatenate(labels)
    return {**model.evaluate(x, y, batch_size=64, verbose=0, return_dict=True), "records": len(x)}


cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
for training in TRAININGS:
    run_dir, replicas, model_name, other = json.loads(training)
    config = TrainConfig(
        SHARDS, run_dir, model=model_name, epochs=1, seed=3, steps_per_execution=10,
        validation_shards=other, working_dir=sys.path[0],
    )  # fmt: skip
    strategy = strategy_of(replicas)
    result = train(config, strategy=strategy, place=WorkerPlace(), reporter=NullReporter())
    model = keras.models.load_model(result.model_path)
    found = {"ours": result.metrics, "keras": by_keras(model, other), "steps": result.steps}
    print(json.dumps(found), flush=True)
