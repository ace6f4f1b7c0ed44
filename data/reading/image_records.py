"""What a record holds beside its image, out of the Example that is left without it.

For a handful of numbers, a label above all, waking TensorFlow's threads to parse them takes longer
than parsing. Most records have no other numbers than an earlier one of the same label: what was
parsed is remembered by its bytes. Anything else is left to TensorFlow.

From records to decoded images in one call out of the tf.data graph.

TensorFlow's own way copies each image several times as a string: from the file, through the
shuffle buffer, when its Example is parsed, and into Python. Here a record that lies on a local
disk travels as its place alone, is read when its batch is made, and its image is decoded from
where it lies within the record. What else the record holds is parsed here where that is a few
numbers, else by TensorFlow.
"""

import math
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final, Protocol

import numpy as np
import tensorflow as tf

from tenfold.data.format.example import decode_example, walk_example
from tenfold.data.format.example_view import split_feature
from tenfold.data.format.manifest import IMAGE, Feature
from tenfold.data.format.tfrecord import fingerprint64
from tenfold.data.reading.decoding.augment_options import Augment
from tenfold.data.reading.decoding.decoders import ImageDecoder
from tenfold.data.reading.decoding.random_crops import random_crop_flip
from tenfold.data.reading.graph_records import InputSpec, parse_features
from tenfold.data.reading.shard_index import ShardIndex
from tenfold.data.runtime.tensorflow_hooks import guarded_callback

# Of more numbers than this, parsing in Python is the slower way.
MAX_VALUES: Final = 16

_REMEMBERED: Final = 4096

_DTYPES: Final = {"int64": np.int64, "float": np.float32}

# The values of each feature.
Row = list[list[Any]]


class NonImageParser(Protocol):
    """Parses features of serialized Examples: rows, then columns of them, then tensors."""

    @property
    def dtypes(self) -> Sequence[Any]:
        """Those of the columns."""
        ...

    def row(self, example: bytes) -> Any:
        """Returns what `columns` takes of one Example.

        Raises:
          ValueError: it is none, or has other values than a feature's.
        """
        ...

    def columns(self, rows: Sequence[Any]) -> list[Any]:
        """Returns arrays [len(rows), …]."""
        ...

    def tensors(self, columns: Sequence[tf.Tensor]) -> dict[str, tf.Tensor]:
        """Returns each feature by its name, [n, *shape], in a graph."""
        ...


def non_image_parser(features: Sequence[Feature]) -> NonImageParser:
    """Returns what parses `features` the fastest."""
    return PythonFeatureParser(features) if are_small(features) else GraphFeatureParser(features)


def are_small(features: Sequence[Feature]) -> bool:
    """Says whether `features` are few numbers, of fixed shapes."""
    if any(feature.kind not in _DTYPES or None in feature.shape for feature in features):
        return False
    return sum(map(_size, features)) <= MAX_VALUES


class GraphFeatureParser:
    """Leaves parsing to TensorFlow, as strings."""

    dtypes = (tf.string,)

    def __init__(self, features: Sequence[Feature]) -> None:
        self._features = tuple(features)

    def row(self, example: bytes) -> bytes:
        """See `NonImageParser`; values of a wrong kind or number are TensorFlow's to find."""
        for _ in walk_example(example):  # TensorFlow's error would not name the record
            pass
        return example

    def columns(self, rows: Sequence[bytes]) -> list[Any]:
        """See `NonImageParser`."""
        return [np.array(rows, object)]

    def tensors(self, columns: Sequence[tf.Tensor]) -> dict[str, tf.Tensor]:
        """See `NonImageParser`."""
        return parse_features(tf.ensure_shape(columns[0], [None]), self._features)


class PythonFeatureParser:
    """Parses features for which `are_small` holds here."""

    def __init__(self, features: Sequence[Feature]) -> None:
        self._features = tuple(features)
        self.dtypes = [_DTYPES[feature.kind] for feature in features]
        self.row = lru_cache(_REMEMBERED)(self._row)

    def _row(self, example: bytes) -> Row:
        found = decode_example(example)
        return [_values(feature, found) for feature in self._features]

    def columns(self, rows: Sequence[Row]) -> list[Any]:
        """Returns an array [len(rows), *shape] of each feature."""
        return [
            np.array([row[at] for row in rows], dtype).reshape(len(rows), *feature.shape)
            for at, (feature, dtype) in enumerate(zip(self._features, self.dtypes, strict=True))
        ]

    def tensors(self, columns: Sequence[tf.Tensor]) -> dict[str, tf.Tensor]:
        """See `NonImageParser`."""
        return {
            feature.name: tf.ensure_shape(column, [None, *feature.shape])
            for feature, column in zip(self._features, columns, strict=True)
        }


def _size(feature: Feature) -> int:
    return math.prod(size for size in feature.shape if size is not None)


def _values(feature: Feature, found: dict[str, tuple[str, list[Any]]]) -> list[Any]:
    kind, values = found.get(feature.name, (feature.kind, []))
    if kind != feature.kind or len(values) != _size(feature):
        raise ValueError(
            f"feature '{feature.name}' has {len(values)} {kind} values, "
            f"the manifest says {_size(feature)} {feature.kind}"
        )
    return values


class ImageReader:
    """Makes batches of records given by their places in `files`, or, without them, whole."""

    def __init__(
        self,
        spec: InputSpec,
        decoder: ImageDecoder,
        *,
        augment: Augment,
        seed: int,
        files: ShardIndex | None,
    ) -> None:
        assert spec.image_shape is not None
        self._shape = spec.image_shape
        self._others = non_image_parser([f for f in spec.features if f.name != IMAGE])
        self._decoder = decoder
        self._augment = augment
        self._seed = seed
        self._files = files

    def fingerprints(self, records: tf.Tensor) -> tf.Tensor:
        """Returns the records' fingerprints, int64 [n], 0 where there is none."""
        prints = tf.numpy_function(
            guarded_callback(lambda given: _fingerprints(self._payloads(given))),
            [records],
            tf.int64,
            stateful=False,
        )
        return tf.ensure_shape(prints, [None])

    def __call__(
        self, records: tf.Tensor, epoch: tf.Tensor | None
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor]:
        """Returns the features, the fingerprints, int64 [n], and the seconds of decoding.

        Images are uint8 [n, height, width, channels]; without an `epoch` they are seen whole.
        """
        images, prints, seconds, *rest = tf.numpy_function(
            guarded_callback(self._read),
            [records, tf.constant(-1, tf.int64) if epoch is None else epoch],
            [tf.uint8, tf.int64, tf.float64, *self._others.dtypes],
            stateful=False,
        )
        features = self._others.tensors(rest)
        features[IMAGE] = tf.ensure_shape(images, [None, *self._shape])
        return features, tf.ensure_shape(prints, [None]), tf.ensure_shape(seconds, [])

    def _read(self, records: Any, epoch: int) -> list[Any]:
        """Returns images, fingerprints, seconds, and arrays of what else the records hold."""
        payloads = self._payloads(records)
        begun = time.perf_counter()
        prints = _fingerprints(payloads)
        views = None
        if self._augment and epoch >= 0:
            views = random_crop_flip(self._augment, prints, seed=self._seed, epoch=int(epoch))
        name_of = self._name_of(records)
        encoded, rest = self._cut_all(payloads, name_of)
        images = self._decoder.decode_batch(encoded, views, name_of)
        return [images, prints, time.perf_counter() - begun, *rest]

    def _cut_all(
        self, payloads: Sequence[Any], name_of: Callable[[int], str]
    ) -> tuple[list[memoryview], list[Any]]:
        """Returns the images, and arrays of what the records hold besides."""
        encoded: list[memoryview] = []
        rest: list[Any] = []
        for at, payload in enumerate(payloads):
            try:
                image, others = split_feature(memoryview(payload), IMAGE)
                rest.append(self._others.row(others))
            except ValueError as error:
                raise ValueError(f"{name_of(at)} cannot be parsed: {error}") from error
            encoded.append(image)
        return encoded, self._others.columns(rest)

    def _payloads(self, records: Any) -> Sequence[Any]:
        """Returns the records themselves, bytes or uint8 [bytes], read if need be; raises
        ValueError.
        """
        found = records.tolist()
        return self._files.read(found) if self._files else found

    def _name_of(self, records: Any) -> Callable[[int], str]:
        """Returns what the record at a place in the batch is called in errors."""
        files = self._files
        if files is None:
            return "image {} of a batch".format
        return lambda at: files.describe(int(records[at]))


def _fingerprints(payloads: Sequence[Any]) -> Any:
    prints = [fingerprint64(payload) if len(payload) else 0 for payload in payloads]
    return np.array(prints, np.uint64).view(np.int64)
