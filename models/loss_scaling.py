"""Steps that are left out because they are not finite, on all replicas together.

Keras's LossScaleOptimizer checks the gradients of each replica alone. A replica that skips the
step takes no part in the sum of the gradients: the other replicas would wait for it for ever, or
apply infinite gradients.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import tensorflow as tf


def all_finite(values: Iterable[Any]) -> tf.Tensor:
    """Return a boolean tensor: True if all values are finite, sparse ones and None included."""
    dense = [value.values if isinstance(value, tf.IndexedSlices) else value for value in values]
    checks = [tf.reduce_all(tf.math.is_finite(value)) for value in dense if value is not None]
    return tf.reduce_all(tf.stack(checks))


def finite_on_all(finite: Any) -> Any:
    """Return a boolean tensor: True if `finite` is true on every replica.

    An all-reduce, to be called in the replica context of every replica.
    """
    context = tf.distribute.get_replica_context()
    overflowed = tf.cast(tf.logical_not(finite), tf.float32)
    return context.all_reduce(tf.distribute.ReduceOp.SUM, overflowed) == 0


def apply_if(
    finite: tf.Tensor,
    update: Callable[[Sequence[Any]], tf.Tensor],
    gradients: Sequence[Any],
    otherwise: Callable[[], None],
) -> tf.Tensor:
    """Update the weights if the gradients are finite, in the replica context of every replica.

    Args:
      finite: as `finite_on_all` returns it, the same on every replica.
      update: updates the weights by the gradients; returns a float32 scalar.
      gradients: the gradients of this replica.
      otherwise: called instead of `update`.

    Returns:
      What `update` returned, NaN if it was not called.
    """

    def skip() -> tf.Tensor:
        otherwise()
        return tf.constant(float("nan"))

    if tf.__internal__.distribute.strategy_supports_no_merge_call():
        return tf.cond(finite, lambda: update(gradients), skip)

    # Where the optimizer merges the replicas, a condition around it must be outside of them, as
    # in Keras's LossScaleOptimizer.
    def merged(strategy: Any, finite: Any, gradients: Sequence[Any]) -> Any:
        def call(function: Callable[..., Any], *args: Any) -> tf.Tensor:
            results = strategy.extended.call_for_each_replica(function, args=args)
            return strategy.experimental_local_results(results)[0]

        return tf.cond(
            strategy.experimental_local_results(finite)[0],
            lambda: call(update, gradients),
            lambda: call(skip),
        )

    context = tf.distribute.get_replica_context()
    return context.merge_call(merged, args=(finite, gradients))
