"""The heads of the built-in models: which target gets which loss, metrics and output."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from tenfold.data.errors import UserError
from tenfold.data.format.manifest import Feature
from tests.models.builtin.model_batches import built, metrics, numbers, reload, spec, train

X = Feature("x", "float", (3,))
LABEL = Feature("label", "int64")
BATCH = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")


def test_label_gets_a_softmax() -> None:
    model = built("mlp", spec([X], [LABEL], classes=5))
    assert model(BATCH).shape == (8, 5)
    assert model.layers[-1].activation.__name__ == "softmax"
    train(model, BATCH, tf.range(8, dtype=tf.int64) % 5)
    assert set(metrics(model)) == {"loss", "accuracy"}


def test_many_classes_have_a_top_5_accuracy() -> None:
    model = built("mlp", spec([X], [LABEL], classes=30))
    train(model, BATCH, tf.range(8, dtype=tf.int64))
    assert set(metrics(model)) == {"loss", "accuracy", "top_5_accuracy"}


def test_zeros_and_ones_get_a_sigmoid() -> None:
    clicked = Feature("clicked", "int64")
    model = built("mlp", spec([X], [clicked], numbers("clicked", 0, 1)))
    y = tf.constant([0, 1] * 4, tf.int64)
    first, *_, last = train(model, BATCH, y, steps=50)
    assert model(BATCH).shape == (8, 1)
    assert last < first
    assert metrics(model)["auc"] > 0.5
    expected = np.mean((model(BATCH)[:, 0] > 0.5).numpy() == y.numpy())
    model.reset_metrics()
    model.compute_metrics(BATCH, y, model(BATCH))
    assert metrics(model)["accuracy"] == pytest.approx(expected)


def test_lists_of_zeros_and_ones_are_labels() -> None:
    tags = Feature("tags", "int64", (4,))
    model = built("mlp", spec([X], [tags], numbers("tags", 0, 1)))
    train(model, BATCH, tf.constant([[0, 1, 0, 1], [1, 0, 1, 0]] * 4, tf.int64))
    assert model(BATCH).shape == (8, 4)
    assert set(metrics(model)) == {"loss", "accuracy", "auc"}


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 3)])
def test_loss_of_numbers_pairs_each_with_its_own(shape: tuple[int, ...]) -> None:
    """Keras would broadcast [n] against [n, 1] to [n, n]."""
    price = Feature("price", "float", shape)
    model = built("mlp", spec([X], [price], numbers("price", 0, 100)))
    y = np.random.default_rng(1).uniform(0, 100, (8, *shape)).astype("float32")
    predicted = np.reshape(model(BATCH), y.shape)
    (loss,) = train(model, BATCH, y)
    assert loss == pytest.approx(np.mean((predicted - y) ** 2) / 25**2, rel=1e-5)
    assert metrics(model)["mae"] == pytest.approx(np.mean(np.abs(predicted - y)), rel=1e-5)


def test_numbers_in_millions_are_learnt() -> None:
    price = Feature("price", "float")
    model = built("mlp", spec([X], [price], numbers("price", 0, 4e6)))
    y = (2e6 + 5e5 * BATCH[:, 0]).astype("float32")
    train(model, BATCH, y, steps=200)
    model.reset_metrics()
    model.compute_metrics(BATCH, y, model(BATCH))
    assert metrics(model)["mae"] < 1e5


def test_loss_does_not_depend_on_the_unit() -> None:
    losses = []
    for unit in (1e-6, 1.0, 1e9):
        price = Feature("price", "float")
        model = built("mlp", spec([X], [price], numbers("price", 0, 100 * unit)))
        y = (unit * np.linspace(0, 100, 8)).astype("float32")
        losses.append(train(model, BATCH, y, steps=3))
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
    np.testing.assert_allclose(losses[2], losses[1], rtol=1e-4)


def test_several_targets_give_a_dict(tmp_path) -> None:
    price, tags = Feature("price", "float"), Feature("tags", "int64", (4,))
    model = built(
        "mlp",
        spec([X], [LABEL, price, tags], numbers("price", 0, 10), numbers("tags", 0, 1), classes=3),
    )
    y = {
        "label": tf.zeros([8], tf.int64),
        "price": tf.ones([8]),
        "tags": tf.constant([[0, 1, 0, 1], [1, 0, 1, 0]] * 4, tf.int64),
    }
    assert {name: tuple(value.shape) for name, value in model(BATCH).items()} == {
        "label": (8, 3),
        "price": (8, 1),
        "tags": (8, 4),
    }
    train(model, BATCH, y)
    assert {"label_accuracy", "price_mae", "tags_auc"} <= set(metrics(model))
    reload(model, BATCH, tmp_path)


@pytest.mark.parametrize(
    ("target", "word"),
    [
        (Feature("age", "int64"), "integers from 0 to 90.*--label_feature=age"),
        (Feature("other", "int64"), "no statistics.*--label_feature=other"),
        (Feature("text", "bytes"), r"target 'text' \(bytes of shape \[\]\)"),
        (Feature("list", "float", (None,)), r"float of shape \[any\]"),
        (Feature("mask", "image", (8, 8, 1)), "only model 'unet' does"),
    ],
)
def test_target_without_a_head_is_refused(target: Feature, word: str) -> None:
    with pytest.raises(UserError, match=word):
        built("mlp", spec([X], [target], numbers("age", 0, 90)))


def test_no_target_is_refused() -> None:
    with pytest.raises(UserError, match=r"nothing to predict.*--target=NAME"):
        built("mlp", spec([X]))


def test_classes_without_targets_mean_the_label() -> None:
    model = built("mlp", replace(spec([X], classes=4), targets=()))
    assert model(BATCH).shape == (8, 4)
