"""`mlp` and `head`: dense layers on numeric features, embeddings or small images."""

from typing import Any

import keras

from tenfold.data.errors import UserError
from tenfold.models.builtin.classifier_head import class_probabilities
from tenfold.models.model_spec import ModelSpec

_HIDDEN = (256, 128)


def build_mlp(spec: ModelSpec) -> keras.Model:
    """Return a classifier with two hidden layers on all inputs, joined and flat; not compiled.

    Raises:
      UserError: a feature is bytes, neither an image nor numbers.
    """
    inputs, hidden = _joined(spec, "mlp")
    for units in _HIDDEN:
        hidden = keras.layers.Dense(units, activation="relu")(hidden)
    return keras.Model(inputs, class_probabilities(hidden, spec), name="mlp")


def build_head(spec: ModelSpec) -> keras.Model:
    """Return a classifier of one dense layer, for stored embeddings; not compiled.

    Raises:
      UserError: a feature is bytes, neither an image nor numbers.
    """
    inputs, hidden = _joined(spec, "head")
    return keras.Model(inputs, class_probabilities(hidden, spec), name="head")


def _joined(spec: ModelSpec, name: str) -> tuple[Any, Any]:
    """Return (the Keras inputs, all of them flattened and joined as [batch, units])."""
    inputs, flat = {}, []
    for feature in spec.inputs:
        if feature.kind == "bytes":
            raise UserError(
                f"model '{name}' takes numbers and images; feature '{feature.name}' is bytes"
            )
        image = feature.kind == "image" and spec.image_shape
        tensor = keras.Input(image or feature.shape, name=feature.name)
        value = keras.layers.Rescaling(1 / 127.5, offset=-1)(tensor) if image else tensor
        inputs[feature.name] = tensor
        flat.append(keras.layers.Flatten()(value))
    joined = flat[0] if len(flat) == 1 else keras.layers.Concatenate()(flat)
    return (next(iter(inputs.values())) if len(inputs) == 1 else inputs), joined
