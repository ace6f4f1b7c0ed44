"""Batches of tensors and ragged tensors in nested structures: sizes, padding, parts, zeros."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import tensorflow as tf

_LEAVES: Final = (tf.Tensor, tf.RaggedTensor)


def map_leaves(function: Callable[[Any], Any], value: Any) -> Any:
    """Return a structure with `function` of each tensor and ragged tensor."""
    return tf.nest.map_structure(function, value)


def named_leaves(value: Any, name: str = "x") -> list[tuple[str, Any]]:
    """Return the leaves of a structure with their names.

    Args:
      value: tensors, or their specs, in dicts, tuples and lists.
      name: the name of a lone leaf. A leaf of a dict has its key's name; of a tuple it has its
        index behind the tuple's name.
    """
    if isinstance(value, Mapping):
        return [leaf for key, item in value.items() for leaf in named_leaves(item, str(key))]
    if isinstance(value, list | tuple):
        items = enumerate(value)
        return [leaf for index, item in items for leaf in named_leaves(item, f"{name}_{index}")]
    return [(name, value)]


def zero(dtype: tf.DType) -> tf.Tensor:
    """Return the scalar 0 of `dtype`, or an empty string."""
    return tf.constant("", dtype) if dtype == tf.string else tf.zeros([], dtype)


def zeros_like_spec(specs: Any, size: int | tf.Tensor = 1) -> Any:
    """Return elements of the given specs: zeros, empty strings and empty lists.

    Args:
      specs: a structure of `tf.TensorSpec` and `tf.RaggedTensorSpec`.
      size: the first dimension, where a spec does not fix it; other open dimensions are 1.
    """

    def zeros(spec: Any) -> Any:
        if isinstance(spec, tf.RaggedTensorSpec):
            return _empty_ragged(spec, size if spec.shape[0] is None else spec.shape[0])
        if not spec.shape.rank:
            return zero(spec.dtype)
        first = size if spec.shape[0] is None else spec.shape[0]
        value = tf.fill([first, *(side or 1 for side in spec.shape[1:])], zero(spec.dtype))
        return tf.ensure_shape(value, spec.shape)

    return map_leaves(zeros, specs)


def _empty_ragged(spec: tf.RaggedTensorSpec, size: int | tf.Tensor) -> tf.RaggedTensor:
    """Return a ragged tensor [size, …] of empty lists."""
    rank = spec.ragged_rank
    value = tf.zeros([0, *(side or 0 for side in spec.shape[rank + 1 :])], spec.dtype)
    if spec.dtype == tf.string:
        value = tf.fill([0, *(side or 0 for side in spec.shape[rank + 1 :])], "")
    # From the innermost dimension on; a uniform one has its size of empty lists in each list.
    sizes = [1]
    for side in spec.shape[1:rank]:
        sizes.append(sizes[-1] * (side or 0))
    for depth in range(rank, 0, -1):
        rows = sizes[depth - 1] * tf.cast(size, spec.row_splits_dtype)
        side = spec.shape[depth]
        if side is not None:
            value = tf.RaggedTensor.from_uniform_row_length(value, side, nrows=rows)
        else:
            splits = tf.zeros([rows + 1], spec.row_splits_dtype)
            value = tf.RaggedTensor.from_row_splits(value, splits, validate=False)
    return value


def pad_rows(value: Any, size: int) -> Any:
    """Return a tensor or ragged tensor with rows of zeros, or empty lists, added up to `size`."""
    if isinstance(value, tf.RaggedTensor):
        missing = tf.cast(size - value.nrows(), value.row_splits.dtype)
        last = tf.fill([missing], value.row_splits[-1])
        splits = tf.concat([value.row_splits, last], axis=0)
        return tf.RaggedTensor.from_row_splits(
            value.values, tf.ensure_shape(splits, [size + 1]), validate=False
        )
    rows = [[0, size - tf.shape(value)[0]]] + [[0, 0]] * (value.shape.rank - 1)
    return tf.pad(value, rows, constant_values=zero(value.dtype))


def with_rows(value: Any, size: int | None) -> Any:
    """Return the value with its static number of rows set, which may be unknown."""
    if isinstance(value, tf.RaggedTensor):
        return value
    return tf.ensure_shape(value, [size, *value.shape[1:]])


def num_rows(value: Any) -> tf.Tensor:
    """Return the first dimension of a tensor or ragged tensor, int64."""
    if isinstance(value, tf.RaggedTensor):
        return value.nrows(tf.int64)
    return tf.shape(value, tf.int64)[0]
