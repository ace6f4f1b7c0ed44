"""`mlp` and `head`: dense layers on numbers, be they features, embeddings or small images."""

from typing import Any

import keras

from tenfold.data.errors import UserError
from tenfold.models.builtin.classifier_head import class_probabilities
from tenfold.models.model_spec import ModelSpec

_HIDDEN = (256, 128)


def build_mlp(spec: ModelSpec) -> keras.Model:
    """Returns two hidden layers on all inputs, flattened and joined; not compiled.

    Raises:
      UserError: an input is neither an image nor numbers.
    """
    inputs, hidden = _joined(spec, "mlp")
    for units in _HIDDEN:
        hidden = keras.layers.Dense(units, activation="relu")(hidden)
    return keras.Model(inputs, class_probabilities(hidden, spec), name="mlp")


def build_head(spec: ModelSpec) -> keras.Model:
    """Returns one layer, the classifier on top of stored embeddings; not compiled.

    Raises:
      UserError: an input is neither an image nor numbers.
    """
    inputs, hidden = _joined(spec, "head")
    return keras.Model(inputs, class_probabilities(hidden, spec), name="head")


def _joined(spec: ModelSpec, name: str) -> tuple[Any, Any]:
    inputs, flat = {}, []
    for feature in spec.inputs:
        if feature.kind == "bytes":
            raise UserError(
                f"model '{name}' takes numbers and images; feature '{feature.name}' is bytes"
            )
        image = feature.kind == "image" and spec.image_shape
        one = keras.Input(image or feature.shape, name=feature.name)
        value = keras.layers.Rescaling(1 / 127.5, offset=-1)(one) if image else one
        inputs[feature.name] = one
        flat.append(keras.layers.Flatten()(value))
    joined = flat[0] if len(flat) == 1 else keras.layers.Concatenate()(flat)
    return (next(iter(inputs.values())) if len(inputs) == 1 else inputs), joined
