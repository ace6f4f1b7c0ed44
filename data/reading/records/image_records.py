"""From records to decoded images in one Python call a batch: the image fast path.

TensorFlow's own path copies each image several times as a string: from the file, through the
shuffle buffer, when its Example is parsed, and into Python. Here a record on a local disk passes
through the shuffle buffer as its record id; it is read when its batch is made, and its image is
decoded from where it lies in the record.

The other features are parsed in Python where they are a few numbers, above all a label: waking
TensorFlow's threads takes longer than parsing these. Most records equal an earlier one apart from
the image, so parsed values are remembered by their bytes. All other features are left to
TensorFlow.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, Protocol

import numpy as np
import tensorflow as tf

from tenfold.data.format.example import decode_example, walk_example
from tenfold.data.format.example_view import split_feature
from tenfold.data.format.manifest import Feature
from tenfold.data.format.tfrecord import fingerprint64
from tenfold.data.reading.decoding.augment_options import NO_AUGMENT, AugmentOptions
from tenfold.data.reading.decoding.decoders import PythonDecoder
from tenfold.data.reading.decoding.random_crops import random_crop_flip
from tenfold.data.reading.feeding.feature_specs import FeatureTensor
from tenfold.data.reading.feeding.input_spec import InputSpec, is_ragged
from tenfold.data.reading.records.companions import Companions
from tenfold.data.reading.records.parse_features import parse_features
from tenfold.data.reading.records.record_reader import RecordBatch
from tenfold.data.reading.records.shard_elements import ShardElements
from tenfold.data.reading.records.shard_index import ShardIndex, UnnamedRecord, UnreadableRecord
from tenfold.data.runtime.tensorflow_hooks import guarded_callback

# Above this many numbers a record, TensorFlow parses faster than Python.
MAX_VALUES: Final = 16

# Parsed Examples that are remembered.
_CACHE_EXAMPLES: Final = 4096
# In place of an epoch: images are taken whole.
_NO_EPOCH: Final = -1

_NO_CROPS: Final = np.zeros((0, 5), np.float32)

_DTYPES: Final = {"int64": np.int64, "float": np.float32}

# The values of each feature of one record.
Row = list[list[Any]]


class ImageRecordReader:
    """A `RecordReader` of record ids in `index`, or of raw records where there is none.

    Args:
      spec: the inputs that the records give.
      decoder: decodes the images.
      elements: record ids, or raw records.
      index: reads records by their ids; None for raw records.
      augment: random crops and flips.
      seed: seed of these.
    """

    records_at_once = 1

    def __init__(
        self,
        spec: InputSpec,
        decoder: PythonDecoder,
        *,
        elements: ShardElements,
        index: ShardIndex | None,
        augment: AugmentOptions = NO_AUGMENT,
        seed: int = 0,
    ) -> None:
        assert spec.image_shape is not None
        self.elements = elements
        self._image = spec.image
        self._shape = spec.image_shape
        self._decoder = decoder
        self._index = index
        self._augment = augment
        self._seed = seed
        others = [feature for feature in spec.features if feature.name != spec.image]
        self._parser = non_image_parser(others, spec.defaults)
        self._companions = Companions(spec)

    def fingerprints(self, records: tf.Tensor) -> tf.Tensor:
        """See `RecordReader`."""
        compute = guarded_callback(lambda found: _fingerprints(self._payloads(found)))
        prints = tf.numpy_function(compute, [records], tf.int64, stateful=False)
        return tf.ensure_shape(prints, [None])

    def read(self, records: tf.Tensor, epoch: tf.Tensor | None) -> RecordBatch:
        """See `RecordReader`."""
        images, prints, seconds, crops, *columns = tf.numpy_function(
            guarded_callback(self._read),
            [records, tf.constant(_NO_EPOCH, tf.int64) if epoch is None else epoch],
            [tf.uint8, tf.int64, tf.float64, tf.float32, *self._parser.dtypes],
            stateful=False,
        )
        features = self._parser.tensors(columns)
        features[self._image] = tf.ensure_shape(images, [None, *self._shape])
        if self._companions.exist:
            moves = (
                tf.ensure_shape(crops, [None, 5]) if epoch is not None and self._augment else None
            )
            features = self._companions.read(features, moves)
        return RecordBatch(features, tf.ensure_shape(prints, [None]), tf.ensure_shape(seconds, []))

    def _read(self, records: Any, epoch: int) -> list[Any]:
        """Return images, fingerprints, seconds, crops, and columns of other features."""
        payloads = self._payloads(records)
        begin_s = time.perf_counter()
        prints = _fingerprints(payloads)
        crops = None
        if self._augment and epoch != _NO_EPOCH:
            crops = random_crop_flip(self._augment, prints, seed=self._seed, epoch=int(epoch))
        describe = self._describer(records)
        try:
            encoded, columns = self._split(payloads, describe)
            images = self._decoder.decode_batch(encoded, crops, describe)
        except ValueError as error:
            kind = UnnamedRecord if self._index is None else UnreadableRecord
            raise kind(str(error)) from error
        moves = _NO_CROPS if crops is None else crops
        return [images, prints, time.perf_counter() - begin_s, moves, *columns]

    def _split(
        self, payloads: Sequence[Any], describe: Callable[[int], str]
    ) -> tuple[list[memoryview], list[Any]]:
        """Return the encoded images, and columns of the other features."""
        encoded: list[memoryview] = []
        rows: list[Any] = []
        for index, payload in enumerate(payloads):
            try:
                image, rest = split_feature(memoryview(payload), self._image)
                rows.append(self._parser.row(rest))
            except ValueError as error:
                raise ValueError(f"{describe(index)} cannot be parsed: {error}") from error
            encoded.append(image)
        return encoded, self._parser.columns(rows)

    def _payloads(self, records: Any) -> Sequence[Any]:
        """Return the records' payloads, bytes or uint8 [bytes]; raise UnreadableRecord."""
        elements: list[Any] = records.tolist()
        return elements if self._index is None else self._index.read(elements)

    def _describer(self, records: Any) -> Callable[[int], str]:
        """Return the function that names the record at an index of the batch in errors."""
        shard_index = self._index
        if shard_index is None:
            return "image {} of a batch".format
        return lambda index: shard_index.describe(int(records[index]))


def _fingerprints(payloads: Sequence[Any]) -> Any:
    prints = [fingerprint64(payload) if len(payload) else 0 for payload in payloads]
    return np.array(prints, np.uint64).view(np.int64)


class NonImageParser(Protocol):
    """Parses the features beside the image: Examples to rows, to columns, to tensors."""

    @property
    def dtypes(self) -> Sequence[Any]:
        """The dtypes of the columns."""
        ...

    def row(self, example: bytes) -> Any:
        """Return one Example's row for `columns`.

        Raises:
          ValueError: it is not an Example, or does not have the features' values.
        """
        ...

    def columns(self, rows: Sequence[Any]) -> list[Any]:
        """Return arrays [len(rows), …]."""
        ...

    def tensors(self, columns: Sequence[tf.Tensor]) -> dict[str, FeatureTensor]:
        """Return each feature by its name, [n, *shape], in a graph."""
        ...


def non_image_parser(features: Sequence[Feature], defaults: Mapping[str, Any]) -> NonImageParser:
    """Return the fastest parser of `features`, whose `defaults` stand for missing ones."""
    if are_small(features):
        return PythonFeatureParser(features)
    return GraphFeatureParser(features, defaults)


def are_small(features: Sequence[Feature]) -> bool:
    """Whether `features` are at most MAX_VALUES numbers, of fixed shapes, in every record."""
    if any(f.kind not in _DTYPES or is_ragged(f) or f.optional for f in features):
        return False
    return sum(map(_size, features)) <= MAX_VALUES


class GraphFeatureParser:
    """A `NonImageParser` that passes Examples on to TensorFlow as strings."""

    dtypes = (tf.string,)

    def __init__(self, features: Sequence[Feature], defaults: Mapping[str, Any]) -> None:
        self._features = tuple(features)
        self._defaults = defaults

    def row(self, example: bytes) -> bytes:
        """See `NonImageParser`; TensorFlow finds values of a wrong kind or number."""
        for _ in walk_example(example):  # TensorFlow's error would not name the record
            pass
        return example

    def columns(self, rows: Sequence[bytes]) -> list[Any]:
        """See `NonImageParser`."""
        return [np.array(rows, object)]

    def tensors(self, columns: Sequence[tf.Tensor]) -> dict[str, FeatureTensor]:
        """See `NonImageParser`."""
        examples = tf.ensure_shape(columns[0], [None])
        return parse_features(examples, self._features, self._defaults)


class PythonFeatureParser:
    """A `NonImageParser` in Python, for features that `are_small`."""

    def __init__(self, features: Sequence[Feature]) -> None:
        self._features = tuple(features)
        self.dtypes = [_DTYPES[feature.kind] for feature in features]
        self.row = lru_cache(_CACHE_EXAMPLES)(self._row)

    def _row(self, example: bytes) -> Row:
        values = decode_example(example)
        return [_values(feature, values) for feature in self._features]

    def columns(self, rows: Sequence[Row]) -> list[Any]:
        """Return an array [len(rows), *shape] of each feature."""
        return [
            np.array([row[index] for row in rows], dtype).reshape(len(rows), *feature.shape)
            for index, (feature, dtype) in enumerate(zip(self._features, self.dtypes, strict=True))
        ]

    def tensors(self, columns: Sequence[tf.Tensor]) -> dict[str, FeatureTensor]:
        """See `NonImageParser`."""
        return {
            feature.name: tf.ensure_shape(column, [None, *feature.shape])
            for feature, column in zip(self._features, columns, strict=True)
        }


def _size(feature: Feature) -> int:
    return math.prod(size for size in feature.shape if size is not None)


def _values(feature: Feature, example: dict[str, tuple[str, list[Any]]]) -> list[Any]:
    kind, values = example.get(feature.name, (feature.kind, []))
    if kind != feature.kind or len(values) != _size(feature):
        raise ValueError(
            f"feature '{feature.name}' has {len(values)} {kind} values, "
            f"the manifest says {_size(feature)} {feature.kind}"
        )
    return values
