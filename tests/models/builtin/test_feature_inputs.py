"""Features of any kind as inputs of `mlp`: normalised numbers, embeddings, means of lists."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tenfold.data.errors import UserError
from tenfold.data.format.manifest import Feature
from tenfold.data.format.statistics.feature_statistics import FeatureStatistics
from tests.models.builtin.model_batches import built, numbers, reload, spec, train

LABEL = Feature("label", "int64")
Y = tf.constant([0, 1, 2], tf.int64)
FEATURES = (
    Feature("age", "int64"),
    Feature("day", "int64"),
    Feature("pay", "float", (2,)),
    Feature("city", "bytes"),
    Feature("note", "bytes"),
    Feature("seen", "int64", (None,)),
    Feature("tags", "bytes", (None,)),
    Feature("spent", "float", (None,)),
    Feature("padded", "int64", (4,)),
    Feature("a/b", "float"),
)
STATISTICS = (
    numbers("age", 0, 100, distinct=90),
    numbers("day", 1, 7, distinct=7),
    numbers("pay", 0, 1e6),
    FeatureStatistics("note", length=(0, 80.0, 300)),
    numbers("seen", 0, 1000, length=(0, 2.0, 9)),
    numbers("spent", 0, 50, length=(0, 2.0, 9)),
    numbers("padded", 0, 50, length=(0, 2.0, 4)),
)


def batch() -> dict[str, Any]:
    return {
        "age": tf.constant([20, 50, 80], tf.int64),
        "day": tf.constant([1, 2, 9], tf.int64),
        "pay": tf.constant([[1e5, 2e5], [3e5, 4e5], [5e5, 6e5]]),
        "city": tf.constant(["Bern", "", "Köln"]),
        "note": tf.constant(["A note of some words", "", b"\xff\xfe" + b"x" * 2000]),
        "seen": tf.ragged.constant([[0, 7], [], [999, 5, 5]], dtype=tf.int64),
        "tags": tf.ragged.constant([["a"], [], ["b", "c"]], dtype=tf.string),
        "spent": tf.ragged.constant([[1.0], [], [2.0, 3.0]]),
        "padded": tf.constant([[1, 2, 0, 0], [0, 0, 0, 0], [1, 2, 3, 4]], tf.int64),
        "a/b": tf.constant([1.0, 2.0, 3.0]),
    }


def hidden(model: keras.Model, x: Any) -> np.ndarray:
    """The vector that goes into the first dense layer."""
    first = next(layer for layer in model.layers if isinstance(layer, keras.layers.Dense))
    return keras.Model(model.inputs, first.input)(
        [x[name] for name in (tensor.name for tensor in model.inputs)]
    ).numpy()


def test_mlp_trains_on_features_of_every_kind(tmp_path: Path) -> None:
    model = built("mlp", spec(FEATURES, [LABEL], *STATISTICS, classes=3))
    x = batch()
    first, *_, last = train(model, x, Y, steps=20)
    assert last < first
    reload(model, x, tmp_path)


def test_large_numbers_fit_half_precision() -> None:
    model = built(
        "mlp", spec(FEATURES, [LABEL], *STATISTICS, classes=3), precision="mixed_float16"
    )
    assert np.isfinite(model(batch())).all()


def test_empty_lists_of_a_whole_batch_give_no_nan() -> None:
    model = built("mlp", spec(FEATURES, [LABEL], *STATISTICS, classes=3))
    x = batch()
    for name in ("seen", "tags", "spent"):
        x[name] = tf.RaggedTensor.from_row_lengths(x[name].values[:0], [0, 0, 0])
    train(model, x, Y)


def test_numbers_are_normalised_by_the_statistics() -> None:
    features = [Feature("age", "int64"), Feature("pay", "float", (2,))]
    model = built("mlp", spec(features, [LABEL], *STATISTICS, classes=3))
    x = {name: batch()[name] for name in ("age", "pay")}
    expected = np.concatenate([(x["age"][:, None] - 50) / 25, (x["pay"] - 5e5) / 2.5e5], axis=1)
    before = hidden(model, x)
    train(model, x, Y, steps=3)
    np.testing.assert_allclose(hidden(model, x), expected, rtol=1e-5)
    np.testing.assert_array_equal(hidden(model, x), before)


def test_statistics_are_weights_that_are_not_trained() -> None:
    features, other = [Feature("age", "int64")], numbers("age", -5, 5)
    one = built("mlp", spec(features, [LABEL], STATISTICS[0], classes=3))
    two = built("mlp", spec(features, [LABEL], other, classes=3))
    two.set_weights(one.get_weights())
    x = batch()["age"]
    np.testing.assert_array_equal(one(x), two(x))
    assert len(one.trainable_weights) == len(one.weights) - 2


def test_without_statistics_nothing_is_normalised() -> None:
    model = built("mlp", spec([Feature("pay", "float", (2,))], [LABEL], classes=3))
    assert [w.shape for w in model.weights][:1] == [(2, 256)]


def test_constant_numbers_are_not_divided_by_zero() -> None:
    constant = FeatureStatistics("age", minimum=3, maximum=3, mean=3, std=0)
    model = built("mlp", spec([Feature("age", "int64")], [LABEL], constant, classes=3))
    train(model, tf.constant([3, 3, 3], tf.int64), Y)


@pytest.mark.parametrize("distinct", [2, 65])
def test_integers_with_few_or_many_values_are_numbers(distinct: int) -> None:
    found = numbers("age", 0, 100, distinct=distinct)
    model = built("mlp", spec([Feature("age", "int64")], [LABEL], found, classes=3))
    assert not any(isinstance(layer, keras.layers.Embedding) for layer in model.layers)


def test_mean_of_a_list_ignores_the_padding() -> None:
    ragged = built("mlp", spec([Feature("seen", "int64", (None,))], [LABEL], classes=3))
    lists = tf.ragged.constant([[5], [5, 5], [], [0]], dtype=tf.int64)
    one, two, none, zero = ragged(lists).numpy()
    np.testing.assert_allclose(one, two, rtol=1e-6)
    assert not np.allclose(none, zero)
    alone = ragged(lists[:1]).numpy()
    np.testing.assert_allclose(one, alone[0], rtol=1e-6)


def test_shape_that_no_layer_takes_is_refused() -> None:
    with pytest.raises(UserError, match=r"feature 'text' is bytes of shape \[2, 3\].*--inputs"):
        built("mlp", spec([Feature("text", "bytes", (2, 3))], [LABEL], classes=3))


def test_keras_without_ragged_inputs_names_the_way_out(monkeypatch) -> None:
    old = keras.Input

    def no_ragged(shape=None, dtype=None, name=None):
        return old(shape, dtype=dtype, name=name)

    monkeypatch.setattr(keras, "Input", no_ragged)
    with pytest.raises(UserError, match="--pad=seen:LENGTH"):
        built("mlp", spec([Feature("seen", "int64", (None,))], [LABEL], classes=3))
