"""Whether a model fits the records: its inputs, outputs and loss, before the first step."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import keras
import tensorflow as tf

from tenfold.data.errors import UserError
from tenfold.data.format.manifest import LABEL
from tenfold.data.reading.feeding.nested import named_leaves
from tenfold.models.model_spec import ModelSpec

# Keras's and TensorFlow's messages about a layer whose output would have no pixels left.
_TOO_SMALL: Final = re.compile(
    r"output size would be (zero or )?negative|[Nn]egative dimension size|<= 0 due to|"
    r"zero or negative value in a dimension|Input size must be at least"
)


@contextmanager
def naming_small_images(name: str, spec: ModelSpec) -> Iterator[None]:
    """Turn errors about images that are too small for model `name` into a UserError."""
    try:
        yield
    except ValueError as error:
        if spec.image_shape is None or not _TOO_SMALL.search(str(error)):
            raise
        raise UserError(
            f"images of {_size(spec.image_shape)} are too small for model '{name}' "
            f"({_first_line(error)}): give a larger --image_size, or a model with fewer "
            "strides and poolings"
        ) from error


def check_model(model: keras.Model, spec: ModelSpec, *, name: str) -> None:
    """Check a compiled model against the batches that it will get.

    Args:
      model: the model.
      spec: what its function was told.
      name: the model's name, for messages.

    Raises:
      UserError: an input has another shape, there is no label for the loss, or the outputs or
        the loss do not fit the classes.
    """
    _check_inputs(model, spec, name)
    if type(model).train_step is keras.Model.train_step and model.loss is not None:
        if spec.y is None:
            names = ", ".join(feature.name for feature in spec.inputs)
            raise UserError(
                f"model '{name}' has a loss, but there is no target: the shards have no feature "
                f"'{LABEL}' (they have {names}): name another one by --target, return (x, y) from "
                "--map, or compile the model without a loss and call add_loss in a layer"
            )
        check_outputs(getattr(model, "outputs", None) or [], name)
        _check_loss(model, spec, name)


def check_outputs(outputs: Any, name: str) -> None:
    """Check that outputs which a loss compares with targets have an axis after the records.

    Keras's losses take the mean over the last axis. Of an output of shape [records] that is the
    mean of the batch: weights of records then have no effect on it, and Keras does not divide it
    by the number of replicas.

    Args:
      outputs: tensors, or a structure of them.
      name: the model's name, for messages.

    Raises:
      UserError: an output has the shape [records].
    """
    for output in tf.nest.flatten(outputs):
        if len(output.shape) == 1:
            raise UserError(
                f"model '{name}' has an output of shape [records], of which Keras's losses would "
                "take the mean at once: give it the shape [records, 1], as Dense(1) does"
            )


def _check_inputs(model: keras.Model, spec: ModelSpec, name: str) -> None:
    """Compare the declared inputs with the features; a subclassed model may declare none."""
    declared = getattr(model, "inputs", None) or []
    given = dict(named_leaves(spec.x))
    for tensor in declared:
        value = given.get(tensor.name) if len(declared) > 1 or len(given) > 1 else _only(given)
        if value is None:
            if isinstance(spec.x, dict):
                raise UserError(
                    f"model '{name}' has an input '{tensor.name}', and it is fed "
                    f"{', '.join(given)}: make its Inputs from spec.inputs, or let --map return a "
                    "dict with this key"
                )
            continue
        if isinstance(value, tf.RaggedTensorSpec) and not getattr(tensor, "ragged", False):
            feature = tensor.name if len(given) > 1 else spec.inputs[0].name
            raise UserError(_ragged_message(name, feature, value))
        wanted, shape = tuple(tensor.shape[1:]), tuple(value.shape[1:])
        if len(wanted) != len(shape) or any(
            a not in (None, b) for a, b in zip(wanted, shape, strict=True)
        ):
            raise UserError(_input_message(name, wanted, shape, spec))


def _ragged_message(name: str, feature: str, value: tf.RaggedTensorSpec) -> str:
    return (
        f"model '{name}' takes dense tensors, and feature '{feature}' is ragged, of shape "
        f"{_size(tuple(value.shape[1:]))}: give --pad={feature}:N, make it dense in a --map, or "
        "declare keras.Input(…, ragged=True)"
    )


def _only(given: Mapping[str, Any]) -> Any:
    return next(iter(given.values()), None)


def _input_message(
    name: str, wanted: tuple[Any, ...], shape: tuple[Any, ...], spec: ModelSpec
) -> str:
    if shape != spec.image_shape:
        return (
            f"model '{name}' takes inputs of shape {_size(wanted)}, the records have "
            f"{_size(shape)}: make its Input from spec.inputs"
        )
    text = f"model '{name}' takes images of {_size(wanted)}, these are {_size(shape)}: "
    same_channels = len(wanted) == 3 and wanted[2] in (None, shape[2])
    if same_channels and all(wanted[:2]):
        flag = wanted[0] if wanted[0] == wanted[1] else f"{wanted[0]}x{wanted[1]}"
        text += f"give --image_size={flag}, or "
    return text + "make its Input from spec.image_shape"


def _are_indices(y: Any) -> bool:
    """Whether a target is one integer for each record: a --map may make shares of classes."""
    return isinstance(y, tf.TensorSpec) and y.shape.rank == 1 and y.dtype.is_integer


def _check_loss(model: keras.Model, spec: ModelSpec, name: str) -> None:
    outputs = getattr(model, "outputs", None) or []
    loss, classes = _loss_name(model.loss), spec.num_classes
    if len(outputs) != 1 or not classes or not _are_indices(spec.y):
        return
    units = outputs[0].shape[-1] if len(outputs[0].shape) > 1 else 1
    if loss == "sparse_categorical_crossentropy" and units is not None and units < classes:
        raise UserError(
            f"model '{name}' has {units} outputs for {classes} classes: make the last layer "
            "with spec.num_classes units"
        )
    if loss == "categorical_crossentropy":
        raise UserError(
            f"model '{name}' has the loss categorical_crossentropy, which takes one-hot labels; "
            "these labels are class indices: compile it with sparse_categorical_crossentropy"
        )
    if loss == "binary_crossentropy" and classes > 2:
        raise UserError(
            f"model '{name}' has the loss binary_crossentropy, which takes 2 classes, and there "
            f"are {classes}: compile it with sparse_categorical_crossentropy and "
            "spec.num_classes outputs"
        )


def _loss_name(loss: Any) -> str:
    """Return a loss's name in snake case; empty for a function of the user's own."""
    if isinstance(loss, str):
        return _snake(loss)
    if isinstance(loss, keras.losses.Loss):
        return _snake(type(loss).__name__)
    return ""


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


@contextmanager
def naming_misfit(name: str) -> Iterator[None]:
    """Turn Keras's errors about labels and outputs that do not fit into a UserError."""
    try:
        yield
    except UserError:
        raise
    except (ValueError, TypeError) as error:
        raise UserError(
            f"the loss or a metric of model '{name}' does not fit its outputs and the labels: "
            f"{_first_line(error)}"
        ) from error


def _first_line(error: Exception) -> str:
    """Return the sentence of a Keras error, without the colours and the layer's arguments."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].startswith("Exception encountered when calling"):
        return lines[1]
    return lines[0] if lines else type(error).__name__


def _size(shape: tuple[Any, ...]) -> str:
    return " × ".join("any" if side is None else str(side) for side in shape) or "scalar"
