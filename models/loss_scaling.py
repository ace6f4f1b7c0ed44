"""Steps in float16 whose gradients are too large on one replica: skipped on all, or on none.

Keras's LossScaleOptimizer asks each replica about its own gradients: those that skip the step
would leave the others waiting for their gradients, for ever, or with infinite ones.
"""

from typing import Any

import tensorflow as tf


def finite_on_all(finite: Any) -> Any:
    """Returns whether `finite` is true on all replicas; each of them must ask."""
    context = tf.distribute.get_replica_context()
    bad = tf.cast(tf.logical_not(finite), tf.float32)
    return context.all_reduce(tf.distribute.ReduceOp.SUM, bad) == 0
