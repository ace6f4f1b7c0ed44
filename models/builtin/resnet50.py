"""`resnet50`: the ResNet-50 of Keras Applications, trained from scratch.

Batch normalisation uses the statistics of each replica's part of the batch, so the losses depend
slightly on the number of replicas.
"""

import keras

from tenfold.data.errors import UserError
from tenfold.models.builtin.feature_inputs import image_input
from tenfold.models.builtin.heads import with_heads
from tenfold.models.model_spec import ModelSpec


def build(spec: ModelSpec) -> keras.Model:
    """Return ResNet-50 v1 for images of `spec.image_shape`.

    Raises:
      UserError: the shards hold no images, or the images are under 32 pixels a side, or a
        target has values that no head predicts.
    """
    inputs = image_input(spec, model="resnet50")
    height, width, _ = shape = inputs.shape[1:]
    if min(height, width) < 32:
        raise UserError(
            f"model 'resnet50' needs images of at least 32 pixels a side, these are "
            f"{height} × {width}: give --image_size=32 or more"
        )
    hidden = keras.layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    backbone = keras.applications.ResNet50(include_top=False, weights=None, input_shape=shape)
    features = keras.layers.GlobalAveragePooling2D(name="features")(backbone(hidden))
    return with_heads(inputs, features, spec, name="resnet50")
