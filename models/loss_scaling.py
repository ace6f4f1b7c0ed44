"""Agreement of all replicas on whether a float16 step overflowed.

Keras's LossScaleOptimizer checks the gradients of each replica alone. A replica that skips the
step takes no part in the sum of the gradients: the other replicas would wait for it for ever, or
apply infinite gradients.
"""

from typing import Any

import tensorflow as tf


def finite_on_all(finite: Any) -> Any:
    """Return a boolean tensor: True if `finite` is true on every replica.

    An all-reduce, to be called in the replica context of every replica.
    """
    context = tf.distribute.get_replica_context()
    overflowed = tf.cast(tf.logical_not(finite), tf.float32)
    return context.all_reduce(tf.distribute.ReduceOp.SUM, overflowed) == 0
