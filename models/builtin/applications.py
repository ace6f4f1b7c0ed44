"""`keras:NAME`: the models of Keras Applications by name, trained from scratch.

Their batch normalisation uses the statistics of each replica's part of the batch, so the losses
depend slightly on the number of replicas; so do their dropout layers.
"""

import inspect
from collections.abc import Callable
from typing import Any

import keras

from tenfold.data.errors import UserError, did_you_mean
from tenfold.models.builtin.feature_inputs import image_input
from tenfold.models.builtin.heads import with_heads
from tenfold.models.model_spec import ModelSpec

_COLOURS = 3


def build(spec: ModelSpec, *, application: str) -> keras.Model:
    """Return a model of Keras Applications for images of `spec.image_shape`.

    Args:
      spec: its input is an image; grey images are repeated to three channels.
      application: the name in `keras.applications`.

    Raises:
      UserError: Keras has no such model, the shards hold no images, the images are too small, or
        a target has values that no head predicts.
    """
    name = f"keras:{application}"
    function = _application(application)
    inputs = image_input(spec, model=name)
    height, width, channels = inputs.shape[1:]
    if channels not in (1, _COLOURS):
        raise UserError(
            f"model '{name}' takes grey and colour images, these have {channels} channels: give a "
            "--model of your own"
        )
    hidden = keras.layers.Concatenate()([inputs] * _COLOURS) if channels == 1 else inputs
    if not _rescales(application, function):
        hidden = keras.layers.Rescaling(1 / 127.5, offset=-1)(hidden)
    try:
        backbone = function(include_top=False, weights=None, input_shape=(height, width, _COLOURS))
        features = backbone(hidden)
    except ValueError as error:
        # Applications refuse small images by their own rule, or fail in a layer.
        raise UserError(
            f"model '{name}' does not take images of {height} × {width} "
            f"({_first_line(error)}): give a larger --image_size"
        ) from error
    if 0 in features.shape:
        raise UserError(
            f"images of {height} × {width} are too small for model '{name}': give a larger "
            "--image_size"
        )
    features = keras.layers.GlobalAveragePooling2D(name="features")(features)
    return with_heads(inputs, features, spec, name=application)


def _application(name: str) -> Callable[..., Any]:
    """Return the function of `keras.applications` called `name`."""
    functions = {
        found: value
        for found, value in vars(keras.applications).items()
        if found[0].isupper() and callable(value)
    }
    if name not in functions:
        # Names differ by their capitals and numbers: compare without capitals first.
        same = next((found for found in functions if found.lower() == name.lower()), name)
        raise UserError(
            f"model 'keras:{name}': Keras has no such application: {did_you_mean(same, functions)}"
        )
    function: Callable[..., Any] = functions[name]
    return function


def _rescales(name: str, function: Callable[..., Any]) -> bool:
    """Whether an application takes pixels from 0 to 255 and scales them itself.

    All that do have an argument for it, but for the first EfficientNets.
    """
    return "include_preprocessing" in inspect.signature(function).parameters or name.startswith(
        "EfficientNetB"
    )


def _first_line(error: ValueError) -> str:
    return str(error).strip().split("\n", 1)[0][:200]
