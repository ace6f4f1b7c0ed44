"""`unet`: a small U-Net from an image to a mask: a class for every pixel.

It has group normalisation in place of batch normalisation, so that nothing in it depends on how
a global batch is divided among the replicas.
"""

from typing import Any, Final

import keras

from tenfold.data.errors import UserError
from tenfold.data.format.manifest import IMAGE
from tenfold.models.builtin.feature_inputs import image_input
from tenfold.models.builtin.heads import Head, compiled
from tenfold.models.model_spec import ModelSpec

_FILTERS: Final = (32, 64, 128, 256)
_MIN_SIDE: Final = 4  # pixels; a smaller image is not halved again


def build(spec: ModelSpec, *, classes: int = 0) -> keras.Model:
    """Return the model for images of `spec.image_shape` and a mask of the same size.

    Args:
      spec: its target is the mask: an image of one channel that holds class indices.
      classes: the number of classes; 0 takes those of the shards.

    Raises:
      UserError: the shards hold no images, the target is no mask, or the number of classes is
        unknown.
    """
    inputs = image_input(spec, model="unet")
    mask = _mask_name(spec)
    classes = classes or spec.num_classes
    if classes < 1:
        raise UserError(
            f"model 'unet' needs the number of classes in the mask '{mask}', which the shards do "
            "not tell: write it behind a colon, as --model=unet:21"
        )
    hidden = keras.layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    probabilities = keras.layers.Conv2D(classes, 1, activation="softmax", dtype="float32")(
        _features(hidden)
    )
    head = Head(
        probabilities,
        keras.losses.SparseCategoricalCrossentropy(),
        [
            keras.metrics.SparseCategoricalAccuracy(name="accuracy"),
            keras.metrics.MeanIoU(classes, sparse_y_pred=False, name="mean_iou"),
        ],
    )
    return compiled(inputs, {mask: head}, spec, name="unet")


def _mask_name(spec: ModelSpec) -> str:
    names = ", ".join(target.name for target in spec.targets) or "none"
    if len(spec.targets) != 1 or spec.targets[0].kind != IMAGE:
        raise UserError(
            f"model 'unet' predicts one mask, an image of class indices; the targets are {names}: "
            "name the mask with --target=NAME"
        )
    if spec.targets[0].shape[2] not in (None, 1):
        raise UserError(
            f"model 'unet' predicts masks of one channel; the image '{names}' has "
            f"{spec.targets[0].shape[2]}: name it with --mask too, or write grey images"
        )
    return names


def _features(image: Any) -> Any:
    """Return the output of the last level, at the size of the image."""
    height, width = image.shape[1:3]
    depth = 0
    while depth < len(_FILTERS) - 1 and min(height, width) >> depth >= 2 * _MIN_SIDE:
        depth += 1
    # Each level halves the sides, which must come out even.
    below, right = (-side % 2**depth for side in (height, width))
    hidden = keras.layers.ZeroPadding2D(((0, below), (0, right)))(image)
    skipped = []
    for filters in _FILTERS[:depth]:
        hidden = _convolutions(hidden, filters)
        skipped.append(hidden)
        hidden = keras.layers.MaxPooling2D()(hidden)
    hidden = _convolutions(hidden, _FILTERS[depth])
    for filters in reversed(_FILTERS[:depth]):
        hidden = keras.layers.UpSampling2D()(hidden)
        hidden = keras.layers.Concatenate()([hidden, skipped.pop()])
        hidden = _convolutions(hidden, filters)
    return keras.layers.Cropping2D(((0, below), (0, right)))(hidden)


def _convolutions(hidden: Any, filters: int) -> Any:
    for _ in range(2):
        hidden = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False)(hidden)
        hidden = keras.layers.GroupNormalization(groups=8)(hidden)
        hidden = keras.layers.Activation("relu")(hidden)
    return hidden
