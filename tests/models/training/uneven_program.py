"""Trains on replicas in one process, each fed as one of so many workers, from the same weights.

python uneven_program.py SHARDS BATCH:REMAINDER:WORKERS,… …  ->  for each case one line of JSON:
for each number of workers the losses of two calls, the metrics after each, and the record counts

WORKERS is 3, or 3x2 for 3 workers that compute their parts of a step in 2 parts.
"""

import json
import sys
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from tenfold.data.reading.batches import feed_of, training_batches
from tenfold.data.reading.read_config import ReadConfig, read_config
from tenfold.data.reading.read_options import ReadOptions, WorkerPlace
from tenfold.models.training.build import build_metrics
from tenfold.models.training.steps import TrainSteps

SHARDS, *CASES = sys.argv[1:]
CALLS = 2
# Of an epoch, or the whole epoch if it is shorter: small batches need not last all its steps.
MAX_STEPS = 25


@dataclass(frozen=True)
class Case:
    """The global batch, the treatment of the last one, and (workers, parts of each step)."""

    batch: int
    remainder: str
    counts: dict[str, tuple[int, int]]


def parse_case(text: str) -> Case:
    batch, remainder, counts = text.split(":")
    pairs = {count: (*map(int, count.split("x")), 1)[:2] for count in counts.split(",")}
    return Case(int(batch), remainder, {name: (a, b) for name, (a, b) in pairs.items()})


class Unused(keras.layers.Layer):
    """A layer with a variable that has no gradient."""

    def build(self, _: Any) -> None:
        self.add_weight(shape=(3,), name="unused")

    def call(self, inputs: Any) -> Any:
        return inputs


def make_model() -> keras.Model:
    keras.utils.set_random_seed(1)
    layers: list[Any] = [
        keras.Input((8, 8, 1)),
        keras.layers.Flatten(),
        Unused(),
        keras.layers.Rescaling(1 / 255),
        keras.layers.Dense(16, "relu", kernel_regularizer="l2"),
        keras.layers.Dense(10, "softmax"),
    ]
    model = keras.Sequential(layers)
    model.compile(
        optimizer=keras.optimizers.Adam(0.01, global_clipnorm=1.0),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy", keras.metrics.IoU(10, [1, 2], sparse_y_pred=False, name="iou")],
    )
    return model


def reading(case: Case, worker: int, num_workers: int) -> ReadConfig:
    return read_config(
        SHARDS,
        split="train",
        global_batch_size=case.batch,
        place=WorkerPlace(worker, num_workers),
        options=ReadOptions(remainder=case.remainder, seed=2),
    )


def batches(case: Case, num_workers: int) -> tf.data.Dataset:
    """Return the batches of all workers in turn, as a strategy deals them to its replicas."""
    parts = [training_batches(reading(case, worker, num_workers)) for worker in range(num_workers)]
    endless = tf.data.Dataset.range(num_workers).repeat()
    return tf.data.Dataset.choose_from_datasets(parts, endless)


def train(case: Case, num_workers: int, accumulate: int) -> dict[str, Any]:
    devices = [f"CPU:{index}" for index in range(num_workers)]
    # One process cannot use collectives of several groups.
    strategy = tf.distribute.MirroredStrategy(devices, tf.distribute.ReductionToOneDevice())
    shards = reading(case, 0, num_workers).shards
    steps = min(MAX_STEPS, shards.steps_per_epoch)
    with strategy.scope():
        model = make_model()
        model.optimizer.build(model.trainable_variables)
        build_metrics(model, feed_of(reading(case, 0, num_workers)).element_spec)
    train_steps = TrainSteps(
        model,
        strategy,
        max_steps=steps,
        class_weights=[1.0 + label / 10 for label in range(10)],
        equal_parts=shards.is_even(1),
        empty_parts=shards.may_be_empty(1),
        accumulate=accumulate,
    )
    iterator = iter(
        strategy.distribute_datasets_from_function(lambda _: batches(case, num_workers))
    )
    results = [train_steps(iterator, steps) for _ in range(CALLS)]
    return {
        "losses": [float(loss) for result in results for loss in result.losses],
        "metrics": [result.metrics for result in results],
        "records": [result.counts[0][0] for result in results],
        "even": shards.is_even(1),
        "empty": shards.may_be_empty(1),
    }


cases = [parse_case(text) for text in CASES]
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(
    cpu,
    [tf.config.LogicalDeviceConfiguration()]
    * max(workers for case in cases for workers, _ in case.counts.values()),
)
for case in cases:
    results = {name: train(case, *counts) for name, counts in case.counts.items()}
    print(json.dumps(results), flush=True)
