"""From raw records to tensors by TensorFlow ops: parsed by the manifest's features, decoded."""

from typing import Any

import tensorflow as tf

from tenfold.data.reading.decoding.augment_options import NO_AUGMENT, AugmentOptions
from tenfold.data.reading.decoding.decoders import GraphDecoder
from tenfold.data.reading.decoding.random_crops import random_crop_flip
from tenfold.data.reading.feeding.input_spec import InputSpec
from tenfold.data.reading.records.companions import Companions
from tenfold.data.reading.records.parse_features import parse_features
from tenfold.data.reading.records.payload_table import PayloadTable
from tenfold.data.reading.records.record_reader import RecordBatch
from tenfold.data.reading.records.shard_elements import ShardElements
from tenfold.data.runtime.tensorflow_hooks import guarded_callback


class GraphRecordReader:
    """A `RecordReader` of raw records, or of record ids where there is a table.

    Args:
      spec: the inputs that the records give.
      decoder: decodes the image; None where there is none.
      elements: raw records, or record ids.
      table: holds the payloads of records by their ids; None for raw records.
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
        table: PayloadTable | None = None,
        augment: AugmentOptions = NO_AUGMENT,
        seed: int = 0,
    ) -> None:
        self.elements = elements
        self._table = table
        self._spec = spec
        self._decoder = decoder
        self._companions = Companions(spec)
        self._augment = augment
        self._seed = seed

    def fingerprints(self, records: tf.Tensor) -> tf.Tensor:
        """See `RecordReader`."""
        return fingerprint(self._payloads(records))

    def read(self, records: tf.Tensor, epoch: tf.Tensor | None) -> RecordBatch:
        """See `RecordReader`."""
        payloads = self._payloads(records)
        prints = fingerprint(payloads)
        with tf.control_dependencies([prints]):
            begin_s = tf.timestamp()
        with tf.control_dependencies([begin_s]):
            features = self._parse(payloads, self._crops(prints, epoch))
        with tf.control_dependencies(tf.nest.flatten(features, expand_composites=True)):
            return RecordBatch(features, prints, tf.timestamp() - begin_s)

    def _payloads(self, records: tf.Tensor) -> tf.Tensor:
        """Return the payloads of elements, string [n]."""
        if self._table is None:
            return records
        read = guarded_callback(self._table.read)
        payloads = tf.numpy_function(read, [records], tf.string, stateful=False)
        return tf.ensure_shape(payloads, [None])

    def _crops(self, prints: tf.Tensor, epoch: tf.Tensor | None) -> tf.Tensor | None:
        if epoch is None or not self._augment:
            return None
        draw = guarded_callback(self._draw_crops)
        crops = tf.numpy_function(draw, [prints, epoch], tf.float32, stateful=False)
        return tf.ensure_shape(crops, [None, 5])

    def _draw_crops(self, prints: Any, epoch: Any) -> Any:
        return random_crop_flip(self._augment, prints, seed=self._seed, epoch=int(epoch))

    def _parse(self, records: tf.Tensor, crops: tf.Tensor | None) -> dict[str, Any]:
        spec = self._spec
        values = parse_features(records, spec.features, spec.defaults)
        if self._decoder is not None:
            values[spec.image] = self._decoder(values[spec.image], crops)
        return self._companions.read(values, crops)


def fingerprint(records: tf.Tensor) -> tf.Tensor:
    """Return FarmHash Fingerprint64 of strings [n], int64 [n]; 0 for "", which is no record."""
    prints = tf.bitcast(tf.fingerprint(records, method="farmhash64"), tf.int64)
    return tf.where(tf.strings.length(records) > 0, prints, tf.zeros_like(prints))
