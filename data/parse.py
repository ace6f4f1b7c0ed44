"""From raw records to tensors: parse by the manifest's features, decode, resize, fingerprint."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import tensorflow as tf

from tenfold.data.errors import UserError
from tenfold.data.manifest import IMAGE, LABEL, Feature, Manifest

FINGERPRINT: Final = "fingerprint"
DEFAULT_SIDE: Final = 224

_DTYPES: Final = {"image": tf.string, "bytes": tf.string, "float": tf.float32, "int64": tf.int64}


@dataclass(frozen=True)
class InputSpec:
    """What a model is fed: the shapes (without the batch) and dtypes of its inputs.

    `image_shape` is (height, width, channels) where there are pictures, else None.
    """

    features: tuple[Feature, ...]
    image_shape: tuple[int, int, int] | None
    num_classes: int

    @property
    def inputs(self) -> tuple[Feature, ...]:
        """Every feature but the label."""
        return tuple(feature for feature in self.features if feature.name != LABEL)


def input_spec(manifest: Manifest, image_size: tuple[int, int] | None = None) -> InputSpec:
    """Returns what a model is fed from `manifest`'s shards.

    `image_size` (height, width) None means the size of the pictures where all are alike, else
    224 × 224. Pictures have 1 channel where all are grey, else 3.

    Raises:
      UserError: a feature's shape differs between records.
    """
    shape = None
    for feature in manifest.features:
        if feature.kind == "image":
            shape = _image_shape(feature, image_size)
        elif None in feature.shape:
            raise UserError(
                f"feature '{feature.name}' has shape {feature.shape}: worker_dataset reads "
                "features of one fixed shape; pad or cut it when writing (--transform)"
            )
    return InputSpec(manifest.features, shape, len(manifest.label_names))


def _image_shape(feature: Feature, size: tuple[int, int] | None) -> tuple[int, int, int]:
    height, width, channels = feature.shape if len(feature.shape) == 3 else (None, None, None)
    if size is None:
        size = (height, width) if height and width else (DEFAULT_SIDE, DEFAULT_SIDE)
    return (*size, 1 if channels == 1 else 3)


def parser(spec: InputSpec) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """Returns the function from one serialized Example to a dict of its features.

    Pictures come out as float32, height × width × channels, values 0 to 255. The record's
    own fingerprint, int64, is under `FINGERPRINT`.
    """
    description = {
        f.name: tf.io.FixedLenFeature([] if f.kind == "image" else f.shape, _DTYPES[f.kind])
        for f in spec.features
    }

    def parse(record: tf.Tensor) -> dict[str, tf.Tensor]:
        values = tf.io.parse_single_example(record, description)
        if spec.image_shape is not None:
            values[IMAGE] = _decode(values[IMAGE], spec.image_shape)
        values[FINGERPRINT] = fingerprint(record)
        return values

    return parse


def _decode(encoded: tf.Tensor, shape: tuple[int, int, int]) -> tf.Tensor:
    height, width, channels = shape
    picture = tf.io.decode_image(encoded, channels=channels, expand_animations=False)
    picture = tf.image.resize(picture, (height, width), method="bilinear", antialias=False)
    return tf.ensure_shape(picture, shape)


def fingerprint(record: tf.Tensor) -> tf.Tensor:
    """Returns FarmHash Fingerprint64 of a string scalar, its 64 bits as an int64."""
    return tf.bitcast(tf.fingerprint(record[tf.newaxis], method="farmhash64"), tf.int64)[0]
