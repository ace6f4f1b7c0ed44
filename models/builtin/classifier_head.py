"""The last layer that the built-in models share."""

from typing import Any

import keras

from tenfold.data.errors import UserError
from tenfold.models.model_spec import ModelSpec


def class_probabilities(hidden: Any, spec: ModelSpec) -> Any:
    """Returns the probability of each class, float32 [batch, spec.num_classes].

    float32 also under a mixed-precision policy: a softmax in half precision loses too much.

    Raises:
      UserError: the shards have no classes.
    """
    if spec.num_classes < 1:
        raise UserError(
            "the built-in models are classifiers, and these shards have no 'label' of class "
            "indices 0, 1, …: give a --model of your own"
        )
    return keras.layers.Dense(spec.num_classes, activation="softmax", dtype="float32")(hidden)
