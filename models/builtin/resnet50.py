"""`resnet50`: the ResNet-50 of Keras Applications, trained from scratch.

Batch normalisation uses the statistics of each replica's part of the batch, so the losses depend
slightly on the number of replicas.
"""

import keras

from tenfold.data.errors import UserError
from tenfold.models.builtin.classifier_head import class_probabilities
from tenfold.models.model_spec import ModelSpec


def build(spec: ModelSpec) -> keras.Model:
    """Return ResNet-50 v1 for images of `spec.image_shape`, not compiled.

    Raises:
      UserError: the shards hold no images, or the images are under 32 pixels a side.
    """
    if spec.image_shape is None:
        raise UserError("model 'resnet50' needs images; these shards have no 'image' feature")
    if min(spec.image_shape[:2]) < 32:
        height, width, _ = spec.image_shape
        raise UserError(
            f"model 'resnet50' needs images of at least 32 pixels a side, these are "
            f"{height} × {width}: give --image_size=32 or more"
        )
    inputs = keras.Input(spec.image_shape, name="image")
    hidden = keras.layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    backbone = keras.applications.ResNet50(
        include_top=False, weights=None, input_shape=spec.image_shape
    )
    features = keras.layers.GlobalAveragePooling2D(name="features")(backbone(hidden))
    outputs = class_probabilities(features, spec)
    return keras.Model(inputs, outputs, name="resnet50")
