"""`mlp` and `head`: dense layers on numbers, categories, lists, texts and small images."""

import keras

from tenfold.models.builtin.feature_inputs import encode_inputs
from tenfold.models.builtin.heads import with_heads
from tenfold.models.model_spec import ModelSpec

_HIDDEN = (256, 128)


def build_mlp(spec: ModelSpec) -> keras.Model:
    """Return a model with two hidden layers on all inputs, joined and flat.

    Raises:
      UserError: an input has a shape, or a target has values, that the model does not take.
    """
    inputs, hidden = encode_inputs(spec, model="mlp")
    for units in _HIDDEN:
        hidden = keras.layers.Dense(units, activation="relu")(hidden)
    return with_heads(inputs, hidden, spec, name="mlp")


def build_head(spec: ModelSpec) -> keras.Model:
    """Return a model of one dense layer, for stored embeddings.

    Raises:
      UserError: an input has a shape, or a target has values, that the model does not take.
    """
    inputs, hidden = encode_inputs(spec, model="head")
    return with_heads(inputs, hidden, spec, name="head")
