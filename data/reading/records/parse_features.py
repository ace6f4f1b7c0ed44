"""The features of serialized Examples and SequenceExamples as tensors, by TensorFlow's parsers.

A feature of one fixed shape becomes a tensor [n, …]. Where records differ in a dimension, it
becomes a `tf.RaggedTensor`, ragged in that dimension: the parser gives the flat values of each
record, which are divided by the sizes that the manifest knows.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from tenfold.data.format.manifest import IMAGE, Feature
from tenfold.data.reading.feeding.feature_specs import DTYPES, FeatureTensor, step_shape
from tenfold.data.reading.feeding.input_spec import is_ragged


def parse_features(
    records: tf.Tensor, features: Sequence[Feature], defaults: Mapping[str, Any]
) -> dict[str, FeatureTensor]:
    """Return `features` of serialized records, string [n]; images stay encoded.

    Args:
      records: serialized Examples, or SequenceExamples where a feature is a sequence.
      features: the features to parse.
      defaults: the values of features of fixed shape in records that lack them.
    """
    if not features:
        return {}
    context = {f.name: _context_parser(f, defaults) for f in features if not f.sequence}
    if len(context) == len(features):
        found = tf.io.parse_example(records, context)
    else:
        steps = {f.name: _ragged_parser(f) for f in features if f.sequence}
        of_context, of_steps, _ = tf.io.parse_sequence_example(records, context, steps)
        found = {**of_context, **of_steps}
    return {feature.name: _with_shape(feature, found[feature.name]) for feature in features}


def _context_parser(feature: Feature, defaults: Mapping[str, Any]) -> Any:
    dtype = DTYPES[feature.kind]
    if feature.kind == IMAGE:
        return tf.io.FixedLenFeature([], dtype)
    if is_ragged(feature):
        return _ragged_parser(feature)
    default = None
    if feature.name in defaults:
        default = tf.fill(feature.shape, tf.constant(defaults[feature.name], dtype))
    return tf.io.FixedLenFeature(feature.shape, dtype, default)


def _ragged_parser(feature: Feature) -> tf.io.RaggedFeature:
    # Row splits of int64 are what all other functions of TensorFlow make by default.
    return tf.io.RaggedFeature(DTYPES[feature.kind], row_splits_dtype=tf.int64)


def _with_shape(feature: Feature, value: FeatureTensor) -> FeatureTensor:
    """Return the parsed values of a feature with the dimensions that the manifest knows."""
    if feature.sequence:
        return _steps(feature, value)
    if not is_ragged(feature) or feature.shape == (None,):
        return value
    at = feature.shape.index(None)
    before, after = _known(feature.shape[:at]), _known(feature.shape[at + 1 :])
    lengths = _divided(value.row_lengths(), math.prod((*before, *after)), feature)
    # One row for each list of the differing dimension.
    rows = tf.repeat(lengths, math.prod(before))
    values = tf.reshape(value.values, [-1, *after])
    ragged = tf.RaggedTensor.from_row_lengths(values, rows, validate=False)
    for size in reversed(before):
        ragged = tf.RaggedTensor.from_uniform_row_length(ragged, size)
    return ragged


def _steps(feature: Feature, value: tf.RaggedTensor) -> FeatureTensor:
    """Return the values [n, steps, values of a step] of a sequence, by the shape of a step."""
    inner = step_shape(feature)
    if None in inner:
        return value
    size = math.prod(_known(inner))
    # Each step has `size` values, so the lists of steps alone are ragged.
    counts = value.values.row_lengths()
    check = tf.debugging.assert_equal(
        counts, tf.constant(size, counts.dtype), f"steps of '{feature.name}' with other values"
    )
    with tf.control_dependencies([check] if check is not None else []):
        values = tf.reshape(value.flat_values, [-1, *inner])
    steps = tf.RaggedTensor.from_row_splits(values, value.row_splits, validate=False)
    if feature.shape[0] is None:
        return steps
    return tf.ensure_shape(steps.to_tensor(), [None, feature.shape[0], *inner])


def _known(shape: Sequence[int | None]) -> list[int]:
    """Return the dimensions of a shape that has no open ones."""
    return [size for size in shape if size is not None]


def _divided(lengths: tf.Tensor, size: int, feature: Feature) -> tf.Tensor:
    check = tf.debugging.assert_equal(
        lengths % size,
        tf.zeros_like(lengths),
        f"feature '{feature.name}' of shape {list(feature.shape)} has a wrong number of values",
    )
    with tf.control_dependencies([check] if check is not None else []):
        return lengths // size
