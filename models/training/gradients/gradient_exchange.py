"""The exchange of gradients between the replicas, and what is known of their sum.

Keras's optimizers sum the gradients of all replicas in a private method, which is wrapped here.
"""

import threading
from collections.abc import Sequence
from typing import Any, Final

import keras
import tensorflow as tf

from tenfold.data.errors import UserError

_SUM: Final = "_all_reduce_sum_gradients"


class _OfReplica(threading.local):
    """What one replica knows between two places of its step: each is traced in its own thread."""

    norm: tf.Tensor | None = None
    summed: list[Any] | None = None


class GradientExchange:
    """Sums gradients over the replicas, once a step, in the given dtype.

    An optimizer that sums within a condition, for loss scaling or accumulation, or that lacks
    Keras's method, sums by itself, in float32.

    Args:
      optimizer: the optimizer, changed in place; None for one that others call.
      dtype: ``float32``, or ``bfloat16`` for half the bytes, with 8 bits of precision.

    Attributes:
      knows_norm: whether `take_norm` returns a norm.

    Raises:
      UserError: the optimizer sums by itself, and not in `dtype`.
    """

    def __init__(self, optimizer: keras.Optimizer | None, dtype: str = "float32") -> None:
        self._dtype = tf.as_dtype(dtype)
        self._own = _OfReplica()
        sums = getattr(optimizer, _SUM, None)
        is_conditional = isinstance(optimizer, keras.optimizers.LossScaleOptimizer) or getattr(
            optimizer, "gradient_accumulation_steps", None
        )
        self.knows_norm = sums is not None and not is_conditional
        if not self.knows_norm:
            if self._dtype != tf.float32:
                raise UserError(
                    f"--gradient_dtype={dtype} is not for this optimizer, which sums gradients by "
                    "itself (as with mixed_float16): use --precision=mixed_bfloat16 or float32"
                )
            return
        assert sums is not None

        def tapped(grads_and_vars: Any) -> Any:
            pairs = list(grads_and_vars)
            if self._own.summed is not None:
                found, self._own.summed = self._own.summed, None
                summed = [(gradient, v) for gradient, (_, v) in zip(found, pairs, strict=True)]
            else:
                cast = [(self._sent(gradient), variable) for gradient, variable in pairs]
                received = sums(cast)
                summed = [(_cast(gradient, v.dtype), v) for gradient, v in received]
            self._own.norm = _global_norm([gradient for gradient, _ in summed])
            return summed

        setattr(optimizer, _SUM, tapped)

    def sum(self, gradients: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Return the sums of dense gradients over the replicas, in the replica context of each."""
        context = tf.distribute.get_replica_context()
        sent = [self._sent(gradient) for gradient in gradients]
        received = context.all_reduce(tf.distribute.ReduceOp.SUM, sent)
        pairs = zip(received, gradients, strict=True)
        return [_cast(gradient, before.dtype) for gradient, before in pairs]

    def use_summed(self, gradients: Sequence[tf.Tensor]) -> None:
        """Let the next update take sums that are there already, in place of another exchange."""
        if self.knows_norm:
            self._own.summed = list(gradients)

    def take_norm(self) -> tf.Tensor:
        """Return the norm of the gradients just applied, in their graph; 0 if it is not known."""
        norm, self._own.norm = self._own.norm, None
        return tf.constant(0.0) if norm is None else norm

    def _sent(self, gradient: Any) -> Any:
        return gradient if self._dtype == tf.float32 else _cast(gradient, self._dtype)


def _cast(gradient: Any, dtype: tf.DType) -> Any:
    if gradient is None or gradient.dtype == dtype:
        return gradient
    if isinstance(gradient, tf.IndexedSlices):
        values = tf.cast(gradient.values, dtype)
        return tf.IndexedSlices(values, gradient.indices, gradient.dense_shape)
    return tf.cast(gradient, dtype)


def _global_norm(gradients: Sequence[Any]) -> tf.Tensor:
    values = [g.values if isinstance(g, tf.IndexedSlices) else g for g in gradients]
    return tf.linalg.global_norm([tf.cast(v, tf.float32) for v in values if v is not None])
