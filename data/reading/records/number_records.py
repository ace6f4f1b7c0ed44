"""From record ids to tensors for records of numbers: the path of small records."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tenfold.data.format.manifest import Feature, ShardInfo
from tenfold.data.format.tfrecord import fingerprint64
from tenfold.data.reading.records.number_layout import DTYPES, NumberDecoder, fixed_shape
from tenfold.data.reading.records.number_table import NumberTable, resident_shards
from tenfold.data.reading.records.parse_features import parse_features
from tenfold.data.reading.records.record_check import parse_problem
from tenfold.data.reading.records.record_reader import RecordBatch
from tenfold.data.reading.records.shard_elements import ShardElements
from tenfold.data.reading.records.shard_index import ShardIndex, UnreadableRecord
from tenfold.data.runtime.tensorflow_hooks import guarded_callback


class NumberRecordReader:
    """A `RecordReader` of the ids of records whose features are numbers of fixed shapes.

    Args:
      features: the features of the records, all of them.
      elements: record ids.
      index: reads records by their ids.
      shards: path and entry of the manifest of each shard.
      max_bytes: memory for the values of the shards; records of the others are read one by one.
    """

    # A call into Python takes as long as reading some hundred records.
    records_at_once = 1 << 12

    def __init__(
        self,
        features: Sequence[Feature],
        *,
        elements: ShardElements,
        index: ShardIndex,
        shards: Sequence[tuple[str, ShardInfo]],
        max_bytes: int,
    ) -> None:
        self.elements = elements
        self._features = tuple(features)
        self._index = index
        self._decoder = NumberDecoder(self._features)
        resident = resident_shards(shards, self._features, max_bytes)
        self._table = NumberTable(resident, index, self._features, self._parse)

    def fingerprints(self, records: tf.Tensor) -> tf.Tensor:
        """See `RecordReader`."""
        return self.read(records, None).fingerprints

    def read(self, records: tf.Tensor, epoch: tf.Tensor | None) -> RecordBatch:
        """See `RecordReader`."""
        del epoch
        dtypes = [DTYPES[feature.kind] for feature in self._features]
        prints, seconds, *columns = tf.numpy_function(
            guarded_callback(self._read),
            [records],
            [tf.int64, tf.float64, *dtypes],
            stateful=False,
        )
        features = {
            feature.name: tf.ensure_shape(column, [None, *feature.shape])
            for feature, column in zip(self._features, columns, strict=True)
        }
        return RecordBatch(features, tf.ensure_shape(prints, [None]), tf.ensure_shape(seconds, []))

    def _read(self, record_ids: Any) -> list[Any]:
        """Return fingerprints, seconds, and the values of each feature."""
        begin_s = time.perf_counter()
        rows = self._table.rows(record_ids)
        if (rows >= 0).all():
            prints = self._table.fingerprints[rows]
            columns = [self._table.values[feature.name][rows] for feature in self._features]
            return [prints, time.perf_counter() - begin_s, *columns]
        here = np.flatnonzero(rows >= 0)
        prints = np.zeros(len(rows), np.int64)
        values = {
            f.name: np.zeros(fixed_shape(f, len(rows)), DTYPES[f.kind]) for f in self._features
        }
        prints[here] = self._table.fingerprints[rows[here]]
        for name, column in values.items():
            column[here] = self._table.values[name][rows[here]]
        others = np.flatnonzero((rows < 0) & (record_ids >= 0))
        self._read_singly(record_ids[others], others, prints, values)
        return [prints, time.perf_counter() - begin_s, *values.values()]

    def _read_singly(
        self,
        record_ids: np.ndarray,
        places: np.ndarray,
        prints: np.ndarray,
        values: Mapping[str, np.ndarray],
    ) -> None:
        """Read records that the table does not hold into `places` of the arrays."""
        if not len(places):
            return
        ids = record_ids.tolist()
        payloads = [payload.tobytes() for payload in self._index.read(ids)]
        found = np.fromiter(map(fingerprint64, payloads), np.uint64, len(payloads))
        prints[places] = found.view(np.int64)
        lengths = np.fromiter(map(len, payloads), np.int64, len(payloads))
        data = np.frombuffer(b"".join(payloads), np.uint8)
        decoded = {name: np.empty_like(column[places]) for name, column in values.items()}
        left = self._decoder.decode(data, np.cumsum(lengths) - lengths, lengths, decoded)
        if len(left):
            try:
                parsed = self._parse([payloads[index] for index in left.tolist()])
            except ValueError as error:
                raise self._first_problem(ids, payloads, error) from error
            for name, column in parsed.items():
                decoded[name][left] = column
        for name, column in values.items():
            column[places] = decoded[name]

    def _first_problem(
        self, ids: Sequence[int], payloads: Sequence[bytes], error: ValueError
    ) -> UnreadableRecord:
        for record_id, payload in zip(ids, payloads, strict=True):
            problem = parse_problem(payload, self._features)
            if problem:
                return UnreadableRecord(f"{self._index.describe(record_id)} {problem}")
        return UnreadableRecord(str(error))

    def _parse(self, payloads: Sequence[bytes]) -> dict[str, np.ndarray]:
        """Parse Examples by TensorFlow; raises ValueError, which says what is wrong with one."""
        return parse_numbers(payloads, self._features)


def parse_numbers(payloads: Sequence[bytes], features: Sequence[Feature]) -> dict[str, np.ndarray]:
    """Return the values of serialized Examples, [n, *shape] of each feature.

    Raises:
      ValueError: one cannot be parsed.
    """
    try:
        with tf.device("CPU:0"):
            parsed = parse_features(tf.constant(list(payloads)), features, {})
    except tf.errors.OpError as error:
        problems = (parse_problem(payload, features) for payload in payloads)
        raise ValueError(next(filter(None, problems), str(error))) from error
    return {name: value.numpy() for name, value in parsed.items()}
