"""From records to batches by TensorFlow's own ops.

From batches of raw records to tensors: parse by the manifest's features, fingerprint.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import tensorflow as tf

from tenfold.data.errors import UserError
from tenfold.data.format.manifest import IMAGE, LABEL, Feature, Manifest
from tenfold.data.reading.decoding.augment_options import Augment
from tenfold.data.reading.decoding.decoders import BatchDecoder
from tenfold.data.reading.decoding.random_crops import random_crop_flip
from tenfold.data.runtime.tensorflow_hooks import guarded_callback

Parser = Callable[[tf.Tensor, tf.Tensor | None], dict[str, tf.Tensor]]


class BatchReader(Protocol):
    """Makes batches of records, or of their places."""

    def fingerprints(self, records: tf.Tensor) -> tf.Tensor:
        """Returns int64 [n]."""

    def __call__(
        self, records: tf.Tensor, epoch: tf.Tensor | None
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor]:
        """Returns features, fingerprints [n] and seconds; no epoch: images are seen whole."""


class GraphReader:
    """Makes batches of whole records; `parse` is what `batch_parser` returns."""

    def __init__(self, parse: Parser, augment: Augment, seed: int) -> None:
        self._parse = parse
        self._augment = augment
        self._seed = seed

    def fingerprints(self, records: tf.Tensor) -> tf.Tensor:
        """Returns int64 [n]."""
        return fingerprint(records)

    def __call__(
        self, records: tf.Tensor, epoch: tf.Tensor | None
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor]:
        """Returns features, fingerprints and the seconds that parsing and decoding took."""
        prints = fingerprint(records)
        begun = tf.timestamp()
        with tf.control_dependencies([begun]):
            views = None
            if self._augment and epoch is not None:
                views = tf.numpy_function(
                    guarded_callback(self._views), [prints, epoch], tf.float32, stateful=False
                )
            batch = self._parse(records, views)
        with tf.control_dependencies(list(batch.values())):
            return batch, prints, tf.timestamp() - begun

    def _views(self, prints: Any, epoch: Any) -> Any:
        return random_crop_flip(self._augment, prints, seed=self._seed, epoch=int(epoch))


DEFAULT_SIDE: Final = 224

_DTYPES: Final = {"image": tf.string, "bytes": tf.string, "float": tf.float32, "int64": tf.int64}


@dataclass(frozen=True)
class InputSpec:
    """What a model is fed: the shapes (without the batch) and dtypes of its inputs.

    `image_shape` is (height, width, channels) where there are images, else None.
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

    `image_size` (height, width) None means the size of the images where all are alike, else
    224 × 224. Images have 1 channel where all are grey, else 3.

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
    return InputSpec(manifest.features, shape, manifest.num_classes)


def _image_shape(feature: Feature, size: tuple[int, int] | None) -> tuple[int, int, int]:
    height, width, channels = feature.shape if len(feature.shape) == 3 else (None, None, None)
    if size is None:
        size = (height, width) if height and width else (DEFAULT_SIDE, DEFAULT_SIDE)
    return (*size, 1 if channels == 1 else 3)


def batch_parser(
    spec: InputSpec, decode: BatchDecoder | None
) -> Callable[[tf.Tensor, tf.Tensor | None], dict[str, tf.Tensor]]:
    """Returns the function from serialized Examples, string [n], to a dict of their features.

    Its second argument, float32 [n, 5] or None, are the images' views (see `views`).
    `decode` may be None where there are no images. Images come out as uint8
    [n, height, width, channels].
    """

    def parse(records: tf.Tensor, views: tf.Tensor | None) -> dict[str, tf.Tensor]:
        values = parse_features(records, spec.features)
        if spec.image_shape is not None:
            assert decode is not None
            values[IMAGE] = decode(values[IMAGE], views)
        return values

    return parse


def parse_features(records: tf.Tensor, features: Sequence[Feature]) -> dict[str, tf.Tensor]:
    """Returns `features` of serialized Examples, string [n]; images as they are encoded."""
    if not features:
        return {}
    description = {
        f.name: tf.io.FixedLenFeature([] if f.kind == "image" else f.shape, _DTYPES[f.kind])
        for f in features
    }
    values: dict[str, tf.Tensor] = tf.io.parse_example(records, description)
    return values


def empty_batch(spec: InputSpec, size: int) -> dict[str, tf.Tensor]:
    """Returns `size` records of zeros and empty strings, as `batch_parser` gives features."""
    batch = {}
    for feature in spec.features:
        dtype, shape = _DTYPES[feature.kind], feature.shape
        if feature.kind == "image" and spec.image_shape is not None:
            dtype, shape = tf.uint8, spec.image_shape
        batch[feature.name] = tf.fill([size, *shape], zero(dtype))
    return batch


def zero(dtype: tf.DType) -> tf.Tensor:
    """Returns the scalar 0 of `dtype`, or an empty string."""
    return tf.constant("" if dtype == tf.string else 0, dtype)


def fingerprint(records: tf.Tensor) -> tf.Tensor:
    """Returns FarmHash Fingerprint64 of strings [n], int64 [n]; 0 for what is empty.

    An empty string is no record: it fills up batches.
    """
    prints = tf.bitcast(tf.fingerprint(records, method="farmhash64"), tf.int64)
    return tf.where(tf.strings.length(records) > 0, prints, tf.zeros_like(prints))
