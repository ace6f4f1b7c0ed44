"""The output layers of the built-in models: one head for each target, chosen by its values."""

import warnings
from dataclasses import dataclass
from math import prod
from typing import Any, Final

import keras

from tenfold.data.errors import UserError
from tenfold.data.format.manifest import LABEL, Feature
from tenfold.data.format.statistics.feature_statistics import FeatureStatistics
from tenfold.models.model_spec import ModelSpec

# From this many classes on, the top-5 accuracy is computed too.
_MANY_CLASSES: Final = 20
_TOP: Final = 5
_LEARNING_RATE: Final = 1e-3
# Limits of the squares of float32.
_MIN_STD, _MAX_STD = 1e-18, 1e18


@dataclass(frozen=True)
class Head:
    """The last layers for one target, and how they are trained.

    Attributes:
      output: the predictions, float32 [batch, …]; [batch, 1] for a target of one number a record:
        the losses and metrics of Keras reduce the last axis.
      loss: the loss.
      metrics: the metrics.
      loss_weight: the factor of the loss in the sum over all targets.
    """

    output: Any
    loss: keras.losses.Loss
    metrics: list[keras.metrics.Metric]
    loss_weight: float = 1.0


def with_heads(inputs: Any, hidden: Any, spec: ModelSpec, *, name: str) -> keras.Model:
    """Return the model from `inputs` to all targets, compiled.

    Args:
      inputs: the Keras input, or a dict of them by the names of the features.
      hidden: the last hidden layer, [batch, units], which all heads share.
      spec: the targets, their classes and their statistics.
      name: the model's name.

    Returns:
      A model with the lone target's predictions as output, or a dict of them by target.

    Raises:
      UserError: there is no target, or one that no head can predict.
    """
    # A spec without targets, of code older than them, has the label where there are classes.
    targets = spec.targets or ((Feature(LABEL, "int64"),) if spec.num_classes else ())
    if not targets:
        raise UserError(
            f"model '{name}' has nothing to predict: the shards have no feature '{LABEL}'; name "
            "the targets with --target=NAME, or write with --label_feature=NAME"
        )
    heads = {target.name: _head(hidden, target, spec, name) for target in targets}
    return compiled(inputs, heads, spec, name=name)


def compiled(inputs: Any, heads: dict[str, Head], spec: ModelSpec, *, name: str) -> keras.Model:
    """Return the model from `inputs` to the outputs of `heads`, compiled with Adam."""
    with warnings.catch_warnings():
        # Keras takes no slash in the name of an input, and warns where a feature has one.
        warnings.filterwarnings("ignore", message="When providing `inputs` as a dict")
        model = keras.Model(inputs, _parts(heads, "output"), name=name)
    model.compile(
        optimizer=keras.optimizers.Adam(spec.learning_rate or _LEARNING_RATE),
        loss=_parts(heads, "loss"),
        loss_weights=_parts(heads, "loss_weight"),
        metrics=_parts(heads, "metrics"),
    )
    return model


def unit_scale(found: FeatureStatistics | None) -> tuple[float, float]:
    """Return (mean, standard deviation) of a feature's numbers; (0, 1) where they are unknown.

    The deviation of constants is 1, and none is so small or large that its square is not a
    float32.
    """
    if found is None or found.mean is None or found.std is None:
        return 0.0, 1.0
    std = min(found.std, _MAX_STD) if found.std >= _MIN_STD else 1.0
    return max(-_MAX_STD, min(found.mean, _MAX_STD)), std


def _parts(heads: dict[str, Head], part: str) -> Any:
    """Return an attribute of the only head, or that of all heads by target."""
    values = {target: getattr(head, part) for target, head in heads.items()}
    return next(iter(values.values())) if len(values) == 1 else values


def _head(hidden: Any, target: Feature, spec: ModelSpec, model: str) -> Head:
    found = spec.statistics.feature(target.name) if spec.statistics else None
    if target.kind == "image":
        raise UserError(
            f"model '{model}' cannot predict the image '{target.name}': only model 'unet' does"
        )
    if target.kind == "bytes" or None in target.shape:
        shape = ", ".join("any" if size is None else str(size) for size in target.shape)
        raise UserError(
            f"model '{model}' cannot predict target '{target.name}' ({target.kind} of shape "
            f"[{shape}]): it predicts classes and numbers of a fixed shape; name another --target "
            "or give a --model of your own"
        )
    if target.kind == "float":
        return _regression(hidden, target, found)
    if target.name == LABEL and target.shape == () and spec.num_classes:
        return _classes(hidden, spec.num_classes)
    low, high = (found.minimum, found.maximum) if found else (None, None)
    if target.shape == () and (low, high) == (0, 1):
        return _binary(hidden)
    if len(target.shape) == 1 and low is not None and high is not None and 0 <= low <= high <= 1:
        return _multi_label(hidden, prod(size or 0 for size in target.shape))
    raise UserError(_no_head(target, low, high))


def _no_head(target: Feature, low: float | None, high: float | None) -> str:
    values = "unknown values (the manifest has no statistics of them)"
    if low is not None and high is not None:
        values = f"integers from {low:.0f} to {high:.0f}"
    way_out = "cast it to float with --map for a regression, or give a --model of your own"
    if target.shape == () and target.name != LABEL:
        way_out = f"write with --label_feature={target.name}, so that it gets classes; {way_out}"
    return (
        f"target '{target.name}' holds {values}; built-in models predict integers that are 0 or "
        f"1, and the classes of the feature '{LABEL}': {way_out}"
    )


def _dense(hidden: Any, units: int, activation: str | None) -> Any:
    # float32 under a mixed-precision policy too: a softmax in half precision loses too much.
    return keras.layers.Dense(units, activation=activation, dtype="float32")(hidden)


def _classes(hidden: Any, classes: int) -> Head:
    """Return the head with the probability of each class, [batch, classes]."""
    metrics: list[keras.metrics.Metric] = [
        keras.metrics.SparseCategoricalAccuracy(name="accuracy")
    ]
    if classes > _MANY_CLASSES:
        name = f"top_{_TOP}_accuracy"
        metrics.append(keras.metrics.SparseTopKCategoricalAccuracy(_TOP, name=name))
    loss = keras.losses.SparseCategoricalCrossentropy()
    return Head(_dense(hidden, classes, "softmax"), loss, metrics)


def _binary(hidden: Any) -> Head:
    """Return the head with the probability of 1, [batch, 1]."""
    metrics = [keras.metrics.BinaryAccuracy(name="accuracy"), keras.metrics.AUC(name="auc")]
    return Head(_dense(hidden, 1, "sigmoid"), keras.losses.BinaryCrossentropy(), metrics)


def _multi_label(hidden: Any, labels: int) -> Head:
    """Return the head with the probability of each label, [batch, labels]."""
    metrics = [
        keras.metrics.BinaryAccuracy(name="accuracy"),
        keras.metrics.AUC(multi_label=True, num_labels=labels, name="auc"),
    ]
    return Head(_dense(hidden, labels, "sigmoid"), keras.losses.BinaryCrossentropy(), metrics)


def _regression(hidden: Any, target: Feature, found: FeatureStatistics | None) -> Head:
    """Return the head with numbers of the target's shape, at the scale of the target.

    The dense layer learns numbers of mean 0 and standard deviation 1: else it would take many
    steps to reach, say, prices in the millions. The loss is divided by the variance: gradients
    do not overflow in half precision, and no target outweighs the others by its unit.
    """
    sizes = tuple(size or 0 for size in target.shape)
    output = _dense(hidden, prod(sizes), None)
    mean, std = unit_scale(found)
    # Frozen weights, not constants: a checkpoint restores them where the model is built for
    # shards with other statistics.
    output = keras.layers.BatchNormalization(
        trainable=False,
        epsilon=0.0,
        beta_initializer=keras.initializers.Constant(mean),
        gamma_initializer=keras.initializers.Constant(std),
        dtype="float32",
    )(output)
    if len(sizes) > 1:
        output = keras.layers.Reshape(sizes, dtype="float32")(output)
    metrics = [keras.metrics.MeanAbsoluteError(name="mae")]
    return Head(output, keras.losses.MeanSquaredError(), metrics, loss_weight=1 / std**2)
