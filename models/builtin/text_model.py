"""`text`: the mean embedding of a text or of a list of tokens, and a dense layer."""

from typing import Any, Final

import keras
from keras import ops

from tenfold.data.errors import UserError
from tenfold.data.format.manifest import Feature
from tenfold.data.format.statistics.feature_statistics import FeatureStatistics
from tenfold.models.builtin.feature_inputs import (
    dense,
    list_input,
    mean_embedding,
    text_vector,
)
from tenfold.models.builtin.heads import with_heads
from tenfold.models.model_spec import ModelSpec

_COLUMNS: Final = 64
_HIDDEN: Final = 128
# A larger vocabulary, or an unknown one, is hashed.
_MAX_VOCABULARY: Final = 200_000
_HASHED_ROWS: Final = 65_536


def build(spec: ModelSpec) -> keras.Model:
    """Return the model for one input: text, or a ragged or padded list of int64 tokens.

    Raises:
      UserError: there is another input, or a target has values that no head predicts.
    """
    feature = _only_input(spec)
    found = spec.statistics.feature(feature.name) if spec.statistics else None
    inputs = list_input(feature, model="text")
    if feature.kind == "bytes":
        vector = text_vector(inputs, found)
    else:
        vector = _token_vector(inputs, feature, found)
    hidden = keras.layers.Dense(_HIDDEN, activation="relu", name="features")(vector)
    return with_heads(inputs, hidden, spec, name="text")


def _only_input(spec: ModelSpec) -> Feature:
    if len(spec.inputs) == 1:
        (feature,) = spec.inputs
        shape = (feature.kind, len(feature.shape))
        if shape in (("bytes", 0), ("int64", 1)):
            return feature
    names = ", ".join(f"{feature.name} ({feature.kind})" for feature in spec.inputs)
    raise UserError(
        f"model 'text' takes one input, a text or a list of int64 tokens; the inputs are {names}: "
        "name the text with --inputs=NAME, or take --model=mlp"
    )


def _token_vector(tokens: Any, feature: Feature, found: FeatureStatistics | None) -> Any:
    """Return the mean embedding of the tokens of each list, [batch, columns]."""
    low, high = (found.minimum, found.maximum) if found else (None, None)
    # A ragged list may hold the token 0; in a padded one 0 stands for no token.
    shift = int(feature.shape == (None,))
    indices = dense(tokens + shift) if shift else tokens
    if low is None or high is None or low < 0 or high >= _MAX_VOCABULARY:
        rows = _HASHED_ROWS
        indices = keras.layers.Hashing(rows, mask_value=0)(indices)
    else:
        rows = int(high) + shift + 2  # the last one is for tokens that training has not
        indices = ops.clip(indices, 0, rows - 1)
    return mean_embedding(indices, rows, _COLUMNS)
