"""Building and compiling a model from a configuration, inside the strategy's scope."""

import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import keras
import tensorflow as tf

from tenfold.data.errors import UserError
from tenfold.data.format.manifest import IMAGE, Feature
from tenfold.data.format.statistics.feature_statistics import SplitStatistics
from tenfold.data.reading.feeding.feed import Feed, unpack
from tenfold.data.reading.feeding.nested import named_leaves, zeros_like_spec
from tenfold.models.model_registry import find_model
from tenfold.models.model_spec import ModelFunction, ModelSpec
from tenfold.models.train_config import TrainConfig
from tenfold.models.training.check_model import naming_small_images
from tenfold.models.training.gradients.optimizer import (
    DEFAULT_LEARNING_RATE,
    set_precision,
    tune_optimizer,
)


def make_model_spec(
    config: TrainConfig,
    feed: Feed,
    *,
    steps_per_epoch: int,
    statistics: SplitStatistics | None,
) -> ModelSpec:
    """Return what a model function is told.

    Args:
      config: the configuration of the run.
      feed: what the model is fed.
      steps_per_epoch: steps of an epoch.
      statistics: those of the training split; None if the shards have none.
    """
    x, y, _ = (*feed.element_spec, None, None)[:3]
    inputs, targets, image_shape = feed.spec.inputs, feed.spec.targets, feed.spec.image_shape
    if feed.function is not None:
        inputs = _features_of(x, "x")
        # A lone target has no name of its own, and takes that of the label if it is the label.
        lone = feed.unchanged.get("y", "y")
        targets = _features_of(y, lone) if y is not None else ()
        sources = {lone if name == "y" else name: of for name, of in feed.unchanged.items()}
        statistics = _renamed(statistics, sources)
        shapes = (feature.shape for feature in inputs if feature.kind == IMAGE)
        image_shape = next(shapes, None)  # type: ignore[assignment]  # `_kind_of` checks it
    return ModelSpec(
        inputs=inputs,
        image_shape=image_shape,
        num_classes=feed.spec.num_classes,
        global_batch_size=config.global_batch_size,
        steps_per_epoch=steps_per_epoch,
        epochs=config.epochs,
        seed=config.seed,
        learning_rate=config.learning_rate,
        targets=targets,
        statistics=statistics,
        x=x,
        y=y,
    )


def _renamed(
    statistics: SplitStatistics | None, sources: Mapping[str, str]
) -> SplitStatistics | None:
    """Return the statistics of tensors, by the stored feature that each one is."""
    if statistics is None:
        return None
    found = {name: statistics.feature(source) for name, source in sources.items()}
    features = [replace(entry, name=name) for name, entry in found.items() if entry]
    return replace(statistics, features=tuple(features))


def _features_of(specs: Any, name: str) -> tuple[Feature, ...]:
    """Return the tensors of x or y as features."""
    return tuple(
        Feature(leaf_name, _kind_of(leaf), tuple(leaf.shape[1:]))
        for leaf_name, leaf in named_leaves(specs, name)
    )


def _kind_of(spec: Any) -> str:
    """Return the kind of a tensor as a feature; images have fixed sides and 1 or 3 channels."""
    shape = tuple(spec.shape[1:])
    if len(shape) == 3 and None not in shape and shape[2] in (1, 3):
        return IMAGE
    if spec.dtype == tf.string:
        return "bytes"
    return "float" if spec.dtype.is_floating else "int64"


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
            model(_zeros(spec.x))  # a subclassed model creates its variables at the first call
    if not model.compiled:
        _compile(model, spec)
    tune_optimizer(model, config, total_steps=spec.epochs * spec.steps_per_epoch)
    model.optimizer.build(model.trainable_variables)
    return model


def build_metrics(model: keras.Model, fed_spec: tuple[Any, ...]) -> None:
    """Create the variables of `model`'s compiled metrics.

    Keras creates them at the first step, but here they must exist before a checkpoint is
    restored, and must be created in the strategy's scope.

    Args:
      model: a compiled model.
      fed_spec: the spec of what the model is fed: `Feed.element_spec`.
    """
    x, y, _ = unpack(zeros_like_spec(fed_spec))
    # Private: Keras 3 has no public way. Its own trainers have called this method since 3.0.
    model._symbolic_build(data_batch=(x, y))


def call_model_function(function: ModelFunction, spec: ModelSpec) -> Any:
    """Return ``function(spec)``, or ``function()`` where it takes no argument."""
    try:
        takes_spec = bool(inspect.signature(function).parameters)
    except ValueError:  # some callables written in C have no signature
        takes_spec = True
    return function(spec) if takes_spec else function()


def _zeros(spec: Any) -> Any:
    """Return a batch of one record of zeros, in the form that the model is fed."""
    return unpack((zeros_like_spec(spec),))[0]


def _compile(model: keras.Model, spec: ModelSpec) -> None:
    model.compile(
        optimizer=keras.optimizers.Adam(spec.learning_rate or DEFAULT_LEARNING_RATE),
        loss=keras.losses.SparseCategoricalCrossentropy(),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    )
