"""From records to decoded pictures in one call out of the tf.data graph.

TensorFlow's own way copies each picture several times as a string: from the file, through the
shuffle buffer, when its Example is parsed, and into Python. Here a record that lies on a local
disk travels as its place alone, is read when its batch is made, and its picture is decoded from
where it lies within the record. What else the record holds is parsed here where that is a few
numbers, else by TensorFlow.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tenfold.data.augment import Augment
from tenfold.data.cut_out import cut_out
from tenfold.data.decode import PictureDecoder
from tenfold.data.manifest import IMAGE
from tenfold.data.other_features import other_features
from tenfold.data.parse import InputSpec
from tenfold.data.python_calls import python_calls
from tenfold.data.records import fingerprint64
from tenfold.data.shard_files import ShardFiles
from tenfold.data.views import draw_views


class PictureReader:
    """Makes batches of records given by their places in `files`, or, without them, whole."""

    def __init__(
        self,
        spec: InputSpec,
        decoder: PictureDecoder,
        *,
        augment: Augment,
        seed: int,
        files: ShardFiles | None,
    ) -> None:
        assert spec.image_shape is not None
        self._shape = spec.image_shape
        self._others = other_features([f for f in spec.features if f.name != IMAGE])
        self._decoder = decoder
        self._augment = augment
        self._seed = seed
        self._files = files

    def fingerprints(self, records: tf.Tensor) -> tf.Tensor:
        """Returns the records' fingerprints, int64 [n], 0 where there is none."""
        prints = tf.numpy_function(
            python_calls(lambda given: _fingerprints(self._payloads(given))),
            [records],
            tf.int64,
            stateful=False,
        )
        return tf.ensure_shape(prints, [None])

    def __call__(
        self, records: tf.Tensor, epoch: tf.Tensor | None
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor]:
        """Returns the features, the fingerprints, int64 [n], and the seconds of decoding.

        Pictures are uint8 [n, height, width, channels]; without an `epoch` they are seen whole.
        """
        pictures, prints, seconds, *rest = tf.numpy_function(
            python_calls(self._read),
            [records, tf.constant(-1, tf.int64) if epoch is None else epoch],
            [tf.uint8, tf.int64, tf.float64, *self._others.dtypes],
            stateful=False,
        )
        features = self._others.tensors(rest)
        features[IMAGE] = tf.ensure_shape(pictures, [None, *self._shape])
        return features, tf.ensure_shape(prints, [None]), tf.ensure_shape(seconds, [])

    def _read(self, records: Any, epoch: int) -> list[Any]:
        """Returns pictures, fingerprints, seconds, and arrays of what else the records hold."""
        payloads = self._payloads(records)
        begun = time.perf_counter()
        prints = _fingerprints(payloads)
        views = None
        if self._augment and epoch >= 0:
            views = draw_views(self._augment, prints, seed=self._seed, epoch=int(epoch))
        name_of = self._name_of(records)
        encoded, rest = self._cut_all(payloads, name_of)
        pictures = self._decoder.decode_batch(encoded, views, name_of)
        return [pictures, prints, time.perf_counter() - begun, *rest]

    def _cut_all(
        self, payloads: Sequence[Any], name_of: Callable[[int], str]
    ) -> tuple[list[memoryview], list[Any]]:
        """Returns the pictures, and arrays of what the records hold besides."""
        encoded: list[memoryview] = []
        rest: list[Any] = []
        for at, payload in enumerate(payloads):
            try:
                picture, others = cut_out(memoryview(payload), IMAGE)
                rest.append(self._others.row(others))
            except ValueError as error:
                raise ValueError(f"{name_of(at)} cannot be parsed: {error}") from error
            encoded.append(picture)
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
            return "picture {} of a batch".format
        return lambda at: files.describe(int(records[at]))


def _fingerprints(payloads: Sequence[Any]) -> Any:
    prints = [fingerprint64(payload) if len(payload) else 0 for payload in payloads]
    return np.array(prints, np.uint64).view(np.int64)
