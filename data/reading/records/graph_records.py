"""From raw records to tensors by TensorFlow ops: parsed by the manifest's features, decoded."""

from collections.abc import Sequence
from typing import Any, Final

import tensorflow as tf

from tenfold.data.format.manifest import IMAGE, Feature
from tenfold.data.reading.decoding.augment_options import NO_AUGMENT, AugmentOptions
from tenfold.data.reading.decoding.decoders import GraphDecoder
from tenfold.data.reading.decoding.random_crops import random_crop_flip
from tenfold.data.reading.read_config import InputSpec
from tenfold.data.reading.records.record_reader import RecordBatch
from tenfold.data.reading.records.shard_elements import ShardElements
from tenfold.data.runtime.tensorflow_hooks import guarded_callback

_DTYPES: Final = {"image": tf.string, "bytes": tf.string, "float": tf.float32, "int64": tf.int64}


class GraphRecordReader:
    """A `RecordReader` of raw records.

    Args:
      spec: the inputs that the records give.
      decoder: decodes the images; None where there are none.
      elements: raw records.
      augment: random crops and flips of images.
      seed: seed of these.
    """

    records_at_once = 1

    def __init__(
        self,
        spec: InputSpec,
        decoder: GraphDecoder | None,
        *,
        elements: ShardElements,
        augment: AugmentOptions = NO_AUGMENT,
        seed: int = 0,
    ) -> None:
        self.elements = elements
        self._spec = spec
        self._decoder = decoder
        self._augment = augment
        self._seed = seed

    def fingerprints(self, records: tf.Tensor) -> tf.Tensor:
        """See `RecordReader`."""
        return fingerprint(records)

    def read(self, records: tf.Tensor, epoch: tf.Tensor | None) -> RecordBatch:
        """See `RecordReader`."""
        prints = fingerprint(records)
        begin_s = tf.timestamp()
        with tf.control_dependencies([begin_s]):
            features = self._parse(records, self._crops(prints, epoch))
        with tf.control_dependencies(list(features.values())):
            return RecordBatch(features, prints, tf.timestamp() - begin_s)

    def _crops(self, prints: tf.Tensor, epoch: tf.Tensor | None) -> tf.Tensor | None:
        if epoch is None or not self._augment:
            return None
        draw = guarded_callback(self._draw_crops)
        return tf.numpy_function(draw, [prints, epoch], tf.float32, stateful=False)

    def _draw_crops(self, prints: Any, epoch: Any) -> Any:
        return random_crop_flip(self._augment, prints, seed=self._seed, epoch=int(epoch))

    def _parse(self, records: tf.Tensor, crops: tf.Tensor | None) -> dict[str, tf.Tensor]:
        values = parse_features(records, self._spec.features)
        if self._spec.image_shape is not None:
            assert self._decoder is not None
            values[IMAGE] = self._decoder(values[IMAGE], crops)
        return values


def parse_features(records: tf.Tensor, features: Sequence[Feature]) -> dict[str, tf.Tensor]:
    """Return `features` of serialized Examples, string [n]; images stay encoded."""
    if not features:
        return {}
    description = {
        f.name: tf.io.FixedLenFeature([] if f.kind == "image" else f.shape, _DTYPES[f.kind])
        for f in features
    }
    values: dict[str, tf.Tensor] = tf.io.parse_example(records, description)
    return values


def empty_features(spec: InputSpec, size: int | tf.Tensor) -> dict[str, tf.Tensor]:
    """Return the features of `size` records, all zeros and empty strings."""
    features = {}
    for feature in spec.features:
        dtype, shape = _DTYPES[feature.kind], feature.shape
        if feature.kind == "image" and spec.image_shape is not None:
            dtype, shape = tf.uint8, spec.image_shape
        features[feature.name] = tf.fill([size, *shape], zero(dtype))
    return features


def zero(dtype: tf.DType) -> tf.Tensor:
    """Return the scalar 0 of `dtype`, or an empty string."""
    return tf.constant("" if dtype == tf.string else 0, dtype)


def fingerprint(records: tf.Tensor) -> tf.Tensor:
    """Return FarmHash Fingerprint64 of strings [n], int64 [n]; 0 for "", which is no record."""
    prints = tf.bitcast(tf.fingerprint(records, method="farmhash64"), tf.int64)
    return tf.where(tf.strings.length(records) > 0, prints, tf.zeros_like(prints))
