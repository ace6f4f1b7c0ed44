"""From elements of the shuffled order to tensors: the protocol of the record readers.

`graph_records.GraphRecordReader` parses and decodes by TensorFlow ops,
`image_records.ImageRecordReader` decodes images in Python, `number_records.NumberRecordReader`
reads numbers as arrays; `batches` chooses one.
"""

from typing import Any, NamedTuple, Protocol, TypeAlias

import tensorflow as tf

from tenfold.data.reading.feeding.feature_specs import FeatureTensor
from tenfold.data.reading.records.shard_elements import ShardElements


class RecordBatch(NamedTuple):
    """A batch of records as tensors.

    What the reader adds is beside the features, whose names are the user's.

    Attributes:
      features: each feature by name, [n, …]; images are uint8 [n, height, width, channels].
      fingerprints: int64 [n]; 0 where there is no record.
      decode_s: float64 scalar, seconds that parsing and decoding took.
    """

    features: dict[str, FeatureTensor]
    fingerprints: tf.Tensor
    decode_s: tf.Tensor


class TrainingBatch(NamedTuple):
    """One replica's part of a training step.

    Attributes:
      fed: what the model is fed, (x,), (x, y) or (x, y, weight): see `Feed`.
      decode_s: that of `RecordBatch`.
      fingerprints: the same, and 0 for a record that is read again in the epoch.
      share: float32 scalar, the records of the part as a multiple of the mean over the parts of
        all replicas; 1 where they are equal.
      counts: int64 [data sets, 3]: for each data set of a mixture, or the only one, the records
        of the part, its leftover records, and the sum of the fingerprints of both modulo 2**64.
    """

    fed: tuple[Any, ...]
    fingerprints: tf.Tensor
    decode_s: tf.Tensor
    share: tf.Tensor
    counts: tf.Tensor


class EvaluationBatch(NamedTuple):
    """One replica's part of an evaluation step: records, then padding.

    Attributes:
      fed: that of `TrainingBatch`.
      fingerprints, decode_s: those of `RecordBatch`.
      present: float32 [n]; 1 for records, 0 for padding.
    """

    fed: tuple[Any, ...]
    fingerprints: tf.Tensor
    decode_s: tf.Tensor
    present: tf.Tensor


Batch: TypeAlias = TrainingBatch | EvaluationBatch


class RecordReader(Protocol):
    """Turns batches of elements into tensors, inside a tf.data graph."""

    @property
    def elements(self) -> ShardElements:
        """The elements that the reader takes: raw records, or record ids."""
        ...

    @property
    def records_at_once(self) -> int:
        """Records that are best read in one call, where batches are smaller; 1 for any number."""
        ...

    def fingerprints(self, records: tf.Tensor) -> tf.Tensor:
        """Return the fingerprints of elements [n], int64 [n]; 0 where there is no record."""
        ...

    def read(self, records: tf.Tensor, epoch: tf.Tensor | None) -> RecordBatch:
        """Return the records of elements [n].

        Args:
          records: elements [n].
          epoch: int64 scalar that random crops depend on; None takes whole images.
        """
        ...
