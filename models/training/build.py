"""Building and compiling a model from a configuration, inside the strategy's scope."""

import inspect
from typing import Any

import keras
import tensorflow as tf

from tenfold.data.errors import UserError
from tenfold.data.reading.batches import empty_elements, split_batch
from tenfold.data.reading.records.record_reader import RecordBatch
from tenfold.models.model_registry import find_model
from tenfold.models.model_spec import ModelFunction, ModelSpec
from tenfold.models.train_config import TrainConfig
from tenfold.models.training.check_model import naming_small_images
from tenfold.models.training.optimizer import DEFAULT_LEARNING_RATE, set_precision, tune_optimizer


def build_model(config: TrainConfig, spec: ModelSpec) -> keras.Model:
    """Return the model that `config` names, compiled, with its optimizer's variables built.

    Args:
      config: the model's name, its precision and the settings of its optimizer.
      spec: the shapes of the data and the size of the run, passed to the model function.

    Raises:
      UserError: the model function does not return a Keras model, or the settings contradict
        each other.
    """
    keras.utils.set_random_seed(spec.seed)
    set_precision(config.precision)
    function = find_model(config.model, working_dir=config.working_dir)
    with naming_small_images(config.model, spec):
        model = call_model_function(function, spec)
    if not isinstance(model, keras.Model):
        raise UserError(
            f"model '{config.model}' returned {type(model).__name__}, not a keras.Model"
        )
    if not model.built:
        with naming_small_images(config.model, spec):
            model(_zeros(spec))  # a subclassed model creates its variables at the first call
    if not model.compiled:
        _compile(model, spec)
    tune_optimizer(model, config, total_steps=spec.epochs * spec.steps_per_epoch)
    model.optimizer.build(model.trainable_variables)
    return model


def build_metrics(model: keras.Model, batch_spec: RecordBatch) -> None:
    """Create the variables of `model`'s compiled metrics.

    Keras creates them at the first step, but here they must exist before a checkpoint is
    restored, and must be created in the strategy's scope.

    Args:
      model: a compiled model.
      batch_spec: the element spec of the training batches.
    """
    x, y, _ = split_batch(empty_elements(batch_spec))
    # Private: Keras 3 has no public way. Its own trainers have called this method since 3.0.
    model._symbolic_build(data_batch=(x, y))


def call_model_function(function: ModelFunction, spec: ModelSpec) -> Any:
    """Return ``function(spec)``, or ``function()`` where it takes no argument."""
    try:
        takes_spec = bool(inspect.signature(function).parameters)
    except ValueError:  # some callables written in C have no signature
        takes_spec = True
    return function(spec) if takes_spec else function()


def _zeros(spec: ModelSpec) -> Any:
    """Return a batch of one record of zeros, in the form that the model is fed."""
    if spec.image_shape is not None and len(spec.inputs) == 1:
        return tf.zeros((1, *spec.image_shape))
    dtypes = {"float": tf.float32, "int64": tf.int64, "bytes": tf.string}
    batch = {
        feature.name: tf.zeros((1, *spec.image_shape))
        if feature.kind == "image" and spec.image_shape
        else tf.zeros((1, *feature.shape), dtypes[feature.kind])
        for feature in spec.inputs
    }
    return next(iter(batch.values())) if len(batch) == 1 else batch


def _compile(model: keras.Model, spec: ModelSpec) -> None:
    model.compile(
        optimizer=keras.optimizers.Adam(spec.learning_rate or DEFAULT_LEARNING_RATE),
        loss=keras.losses.SparseCategoricalCrossentropy(),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    )
