"""`text`: token lists and texts, their vocabulary, and what it refuses."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tenfold.data.errors import UserError
from tenfold.data.format.manifest import Feature
from tests.models.builtin.model_batches import built, numbers, reload, spec, train

LABEL = Feature("label", "int64")
TOKENS = Feature("tokens", "int64", (None,))
TEXT = Feature("text", "bytes")
Y = tf.constant([0, 1, 0, 1], tf.int64)


def rows(model: keras.Model) -> list[int]:
    """The rows of the embeddings."""
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.Embedding)]
    return [layer.input_dim for layer in layers]


def test_texts_are_learnt(tmp_path: Path) -> None:
    model = built("text", spec([TEXT], [LABEL], classes=2))
    x = tf.constant(["a good film", "bad", "Good!", "so bad a film"])
    losses = train(model, x, Y, steps=60)
    assert losses[-1] < 0.2
    assert np.argmax(model(tf.constant(["GOOD", "very bad"])), axis=-1).tolist() == [0, 1]
    reload(model, x, tmp_path)


def test_texts_of_any_bytes_and_length_give_numbers() -> None:
    model = built("text", spec([TEXT], [LABEL], classes=2))
    train(model, tf.constant(["", b"\xff\x00\xfe", "語" * 5000, "x"]), Y)


def test_ragged_tokens_are_learnt(tmp_path: Path) -> None:
    found = numbers("tokens", 0, 50, length=(0, 2.0, 3))
    model = built("text", spec([TOKENS], [LABEL], found, classes=2))
    x = tf.ragged.constant([[0, 1], [2], [0], [2, 50, 2]], dtype=tf.int64)
    assert rows(model) == [53]
    losses = train(model, x, Y, steps=60)
    assert losses[-1] < 0.2
    # Tokens that training has not share the last row.
    unseen = tf.ragged.constant([[51], [10**12], [-3]], dtype=tf.int64)
    one, two, negative = model(unseen).numpy()
    np.testing.assert_array_equal(one, two)
    assert np.isfinite(negative).all()
    reload(model, x, tmp_path)


def test_padding_of_token_lists_does_not_count() -> None:
    padded = Feature("tokens", "int64", (5,))
    found = numbers("tokens", 1, 50, length=(0, 2.0, 3))
    model = built("text", spec([padded], [LABEL], found, classes=2))
    x = tf.constant([[7, 0, 0, 0, 0], [7, 7, 7, 0, 0], [0, 0, 0, 0, 0]], tf.int64)
    one, three, none = model(x).numpy()
    np.testing.assert_allclose(one, three, rtol=1e-6)
    np.testing.assert_allclose(none, [0.5, 0.5])


@pytest.mark.parametrize("limits", [None, (-1, 5), (0, 10**9)])
def test_tokens_without_small_vocabulary_are_hashed(limits: tuple[int, int] | None) -> None:
    found = [numbers("tokens", *limits)] if limits else []
    model = built("text", spec([TOKENS], [LABEL], *found, classes=2))
    assert rows(model) == [65_536]
    train(model, tf.ragged.constant([[-1], [], [3], [10**9, 4]], dtype=tf.int64), Y)


@pytest.mark.parametrize(
    "inputs", [[Feature("x", "float", (3,))], [TEXT, TOKENS], [Feature("age", "int64")]]
)
def test_other_inputs_are_refused(inputs: list[Feature]) -> None:
    with pytest.raises(UserError, match=r"takes one input.*--inputs=NAME, or take --model=mlp"):
        built("text", spec(inputs, [LABEL], classes=2))
