"""`cnn`: a small convolutional network with the same losses on any number of workers.

It has group normalisation in place of batch normalisation, and no dropout, so that nothing in it
depends on how a global batch is divided among the replicas.
"""

import keras

from tenfold.models.builtin.feature_inputs import image_input
from tenfold.models.builtin.heads import with_heads
from tenfold.models.model_spec import ModelSpec

_MIN_POOLED_SIDE = 6  # pixels; a smaller image is not halved again
_MAX_FILTERS = 256


def build(spec: ModelSpec) -> keras.Model:
    """Return the model for images of `spec.image_shape`.

    Blocks of convolution, normalisation and pooling halve the image until a further halving
    would leave fewer than 3 pixels a side.

    Raises:
      UserError: the shards hold no images, or a target has values that no head predicts.
    """
    inputs = image_input(spec, model="cnn")
    hidden = keras.layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    side, filters = min(inputs.shape[1:3]), 32
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
    return with_heads(inputs, hidden, spec, name="cnn")
