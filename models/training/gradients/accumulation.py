"""The gradient of a batch from parts of it that are computed one after the other."""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from tenfold.data.reading.feeding.nested import map_leaves, num_rows

# From x, y, the weights and the share of a batch to its loss and its dense gradients.
GradientFunction = Callable[[Any, Any, Any, tf.Tensor], tuple[tf.Tensor, Sequence[tf.Tensor]]]


def accumulated_gradients(
    function: GradientFunction,
    fed: tuple[Any, Any, Any],
    share: tf.Tensor,
    *,
    parts: int,
    shapes: Sequence[tf.TensorShape],
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """Return the loss and the gradients of a batch, from `parts` parts of its rows.

    The loss of a batch is the mean over its records, so a part counts by its records.

    Args:
      function: computes the loss and the gradients of a part.
      fed: x, y and the weights of the records, each of the last two may be None.
      share: what the batch weighs.
      parts: the number of parts; some are empty in a batch with fewer records.
      shapes: the shapes of the gradients, all float32.
    """
    given = [value for value in fed if value is not None]
    rows = num_rows(tf.nest.flatten(given[0])[0])

    def part_of(index: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        begin, end = index * rows // parts, (index + 1) * rows // parts

        def compute() -> tuple[tf.Tensor, list[tf.Tensor]]:
            cut = iter(map_leaves(lambda value: value[begin:end], given))
            x, y, weight = (None if value is None else next(cut) for value in fed)
            part_share = share * tf.cast((end - begin) / rows, share.dtype)
            loss, gradients = function(x, y, weight, part_share)
            return tf.cast(loss, tf.float32), list(gradients)

        return tf.cond(end > begin, compute, lambda: (tf.zeros([]), [tf.zeros(s) for s in shapes]))

    def body(index: tf.Tensor, loss: tf.Tensor, *sums: tf.Tensor) -> tuple[tf.Tensor, ...]:
        more, gradients = part_of(index)
        added = (total + own for total, own in zip(sums, gradients, strict=True))
        return index + 1, loss + more, *added

    begin = (tf.constant(0, tf.int64), tf.zeros([]), *(tf.zeros(shape) for shape in shapes))
    _, loss, *gradients = tf.while_loop(
        lambda index, *_: index < parts, body, begin, parallel_iterations=1
    )
    return loss, gradients
