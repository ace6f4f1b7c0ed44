"""The metrics over all workers, from the sums of their variables.

The mean of the workers' results would be wrong where they read different numbers of records, and
for metrics that are no means, as AUC.
"""

import math
from typing import Any

import keras
import tensorflow as tf


class MetricTotals:
    """The state of a model's metrics as one vector that can be summed over replicas.

    Args:
      model: a compiled model whose metrics have their variables.
    """

    def __init__(self, model: keras.Model) -> None:
        self._model = model
        self._variables = list(model.metrics_variables)
        self._sizes = [math.prod(variable.shape) for variable in self._variables]

    @property
    def size(self) -> int:
        """The length of the vector."""
        return sum(self._sizes)

    def local_values(self, strategy: tf.distribute.Strategy) -> tf.Tensor:
        """Return the sum of the vectors of this worker's replicas, float32 [size]."""

        def replica() -> tf.Tensor:
            count = strategy.num_replicas_in_sync
            parts = [tf.zeros([0])]
            for variable in self._variables:
                value = tf.cast(tf.convert_to_tensor(variable.value), tf.float32)
                is_sum = variable.aggregation == "sum"
                parts.append(tf.reshape(value if is_sum else value / count, [-1]))
            return tf.concat(parts, axis=0)

        return tf.add_n(list(strategy.experimental_local_results(strategy.run(replica))))

    def results(self, total: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return the results of the metrics by name, without the loss.

        Args:
          total: the sum of the vectors of all replicas.
        """
        parts = tf.split(total, self._sizes) if self._sizes else []
        mapping: list[tuple[Any, Any]] = [
            (variable, tf.cast(tf.reshape(part, variable.shape), variable.dtype))
            for variable, part in zip(self._variables, parts, strict=True)
        ]
        with keras.StatelessScope(state_mapping=mapping):
            return metric_results(self._model)


def metric_results(model: keras.Model) -> dict[str, Any]:
    """Return the values of the model's compiled metrics by name, without the loss.

    Under a strategy this sums over the replicas: it blocks until all workers call it.
    """
    results = model.get_metrics_result()
    return {name: value for name, value in results.items() if name != "loss"}
