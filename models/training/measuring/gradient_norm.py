"""The norm of the gradient of the global batch, as the optimizer sees it."""

from typing import Any

import keras
import tensorflow as tf

# Keras's optimizers sum the gradients of all replicas in this private method.
_SUM = "_all_reduce_sum_gradients"


class GradientNorm:
    """Taps the gradients that an optimizer has summed over the replicas.

    The sum is there anyway: the norm costs one pass over it. It is not known of an optimizer that
    sums within a condition, for loss scaling or accumulation, or that lacks Keras's method.

    Args:
      optimizer: the optimizer, changed in place; None for one that others call.

    Attributes:
      is_known: whether `take` returns a norm.
    """

    def __init__(self, optimizer: keras.Optimizer | None) -> None:
        self._norm: tf.Tensor | None = None
        sums = getattr(optimizer, _SUM, None)
        is_conditional = isinstance(optimizer, keras.optimizers.LossScaleOptimizer) or getattr(
            optimizer, "gradient_accumulation_steps", None
        )
        self.is_known = sums is not None and not is_conditional
        if not self.is_known:
            return
        assert sums is not None

        def tapped(grads_and_vars: Any) -> Any:
            summed = sums(grads_and_vars)
            values = [g.values if isinstance(g, tf.IndexedSlices) else g for g, _ in summed]
            floats = [tf.cast(value, tf.float32) for value in values if value is not None]
            self._norm = tf.linalg.global_norm(floats)
            return summed

        setattr(optimizer, _SUM, tapped)

    def take(self) -> tf.Tensor:
        """Return the norm of the gradients just applied, in their graph; 0 if it is not known."""
        norm, self._norm = self._norm, None
        return tf.constant(0.0) if norm is None else norm
