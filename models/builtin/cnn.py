"""`cnn`: a small convolutional classifier with the same losses on any number of workers.

It has group normalisation in place of batch normalisation, and no dropout, so that nothing in it
depends on how a global batch is divided among the replicas.
"""

import keras

from tenfold.data.errors import UserError
from tenfold.models.builtin.classifier_head import class_probabilities
from tenfold.models.model_spec import ModelSpec

_MIN_POOLED_SIDE = 6  # pixels; a smaller image is not halved again
_MAX_FILTERS = 256


def build(spec: ModelSpec) -> keras.Model:
    """Return the classifier for images of `spec.image_shape`, not compiled.

    Blocks of convolution, normalisation and pooling halve the image until a further halving
    would leave fewer than 3 pixels a side.

    Raises:
      UserError: the shards hold no images.
    """
    if spec.image_shape is None:
        raise UserError("model 'cnn' needs images; these shards have no 'image' feature")
    inputs = keras.Input(spec.image_shape, name="image")
    hidden = keras.layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    side, filters = min(spec.image_shape[:2]), 32
    while True:
        hidden = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False)(hidden)
        hidden = keras.layers.GroupNormalization(groups=8)(hidden)
        hidden = keras.layers.Activation("relu")(hidden)
        if side < _MIN_POOLED_SIDE:
            break
        hidden = keras.layers.MaxPooling2D()(hidden)
        side, filters = side // 2, min(2 * filters, _MAX_FILTERS)
    hidden = keras.layers.Flatten()(hidden)
    hidden = keras.layers.Dense(128, activation="relu", name="features")(hidden)
    outputs = class_probabilities(hidden, spec)
    return keras.Model(inputs, outputs, name="cnn")
