"""Sizes, padding and zeros of tensors and ragged tensors."""

import pytest
import tensorflow as tf

from tenfold.data.reading.feeding.nested import (
    named_leaves,
    num_rows,
    pad_rows,
    with_rows,
    zeros_like_spec,
)

RAGGED = tf.ragged.constant([[1, 2], [], [3]])


@pytest.mark.parametrize(
    "spec",
    [
        tf.TensorSpec([None, 2], tf.float32),
        tf.TensorSpec([None], tf.string),
        tf.TensorSpec([], tf.float64),
        tf.RaggedTensorSpec([None, None], tf.int64, 1, tf.int32),
        tf.RaggedTensorSpec([None, None, 4], tf.float32, 1, tf.int32),
        tf.RaggedTensorSpec([None, 3, None], tf.int64, 2, tf.int32),
        tf.RaggedTensorSpec([None, None, None], tf.string, 2, tf.int64),
    ],
)
def test_zeros_fit_the_spec(spec: tf.TypeSpec) -> None:
    value = zeros_like_spec(spec, 5)
    assert spec.is_compatible_with(value)
    if spec.shape.rank:
        assert int(num_rows(value)) == 5


def test_padding_adds_rows() -> None:
    assert pad_rows(RAGGED, 5).to_list() == [[1, 2], [], [3], [], []]
    assert pad_rows(tf.constant(["a"]), 2).numpy().tolist() == [b"a", b""]
    assert pad_rows(tf.ones([1, 2]), 2).numpy().tolist() == [[1, 1], [0, 0]]
    assert pad_rows(RAGGED, 3).to_list() == RAGGED.to_list()


def test_rows_can_be_fixed() -> None:
    assert with_rows(tf.ones([2, 3]), 2).shape == (2, 3)
    assert with_rows(RAGGED, 3) is RAGGED


def test_leaves_have_the_names_of_their_keys() -> None:
    value = {"a": 1, "b": (2, {"c": 3})}
    assert named_leaves(value) == [("a", 1), ("b_0", 2), ("c", 3)]
    assert named_leaves(4, "y") == [("y", 4)]
