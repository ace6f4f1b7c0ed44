"""The output layer of the built-in classifiers."""

from typing import Any

import keras

from tenfold.data.errors import UserError
from tenfold.models.model_spec import ModelSpec


def class_probabilities(hidden: Any, spec: ModelSpec) -> Any:
    """Return the probability of each class, float32 [batch, spec.num_classes].

    The layer computes in float32 under a mixed-precision policy too, because a softmax in half
    precision loses too much.

    Raises:
      UserError: the shards have no classes.
    """
    if spec.num_classes < 1:
        raise UserError(
            "the built-in models are classifiers, and these shards have no 'label' of class "
            "indices 0, 1, …: give a --model of your own"
        )
    return keras.layers.Dense(spec.num_classes, activation="softmax", dtype="float32")(hidden)
