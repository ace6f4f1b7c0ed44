"""From records to batches by TensorFlow's own ops."""

from collections.abc import Callable
from typing import Any, Protocol

import tensorflow as tf

from tenfold.data.augment import Augment
from tenfold.data.parse import fingerprint
from tenfold.data.python_calls import python_calls
from tenfold.data.views import draw_views

Parser = Callable[[tf.Tensor, tf.Tensor | None], dict[str, tf.Tensor]]


class BatchReader(Protocol):
    """Makes batches of records, or of their places."""

    def fingerprints(self, records: tf.Tensor) -> tf.Tensor:
        """Returns int64 [n]."""

    def __call__(
        self, records: tf.Tensor, epoch: tf.Tensor | None
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor]:
        """Returns features, fingerprints [n] and seconds; no epoch: pictures are seen whole."""


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
                    python_calls(self._views), [prints, epoch], tf.float32, stateful=False
                )
            batch = self._parse(records, views)
        with tf.control_dependencies(list(batch.values())):
            return batch, prints, tf.timestamp() - begun

    def _views(self, prints: Any, epoch: Any) -> Any:
        return draw_views(self._augment, prints, seed=self._seed, epoch=int(epoch))
