"""`keras:NAME`: names, sizes, scaling and channels of the models of Keras Applications."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tenfold.data.errors import UserError
from tenfold.data.format.manifest import Feature
from tests.models.builtin.model_batches import built, reload, spec, train

IMAGE = Feature("image", "image", (None, None, 3))
LABEL = Feature("label", "int64")


def built_for(name: str, *shape: int) -> keras.Model:
    height, width, channels = shape
    image = spec([IMAGE], [LABEL], classes=4, image_shape=(height, width, channels))
    return built(f"keras:{name}", image)


def test_application_trains_on_grey_images(tmp_path: Path) -> None:
    model = built_for("MobileNet", 40, 33, 1)
    x = np.random.default_rng(0).uniform(0, 255, (4, 40, 33, 1)).astype("float32")
    train(model, x, tf.constant([0, 1, 2, 3], tf.int64))
    assert model(x).shape == (4, 4)
    reload(model, x, tmp_path)


@pytest.mark.parametrize(("name", "scales"), [("MobileNetV3Small", True), ("MobileNet", False)])
def test_pixels_are_scaled_once(name: str, scales: bool) -> None:
    model = built_for(name, 32, 32, 3)
    own = any(isinstance(layer, keras.layers.Rescaling) for layer in model.layers)
    assert own is not scales
    (backbone,) = (layer for layer in model.layers if isinstance(layer, keras.Model))
    inner = any(isinstance(layer, keras.layers.Rescaling) for layer in backbone.layers)
    assert inner is scales


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("EfficientNetV2B9", r"did you mean 'EfficientNetV2B\d'\?"),
        ("mobilenet", "did you mean 'MobileNet'"),
        ("keras", "no such application: there are: ConvNeXtBase"),
    ],
)
def test_misspelt_application_is_refused(name: str, word: str) -> None:
    with pytest.raises(UserError, match=word):
        built_for(name, 32, 32, 3)


def test_small_images_are_refused_in_one_line() -> None:
    with pytest.raises(UserError, match=r"8 × 8 .*larger --image_size") as error:
        built_for("MobileNet", 8, 8, 3)
    assert "\n" not in str(error.value)


def test_application_without_images_is_refused() -> None:
    with pytest.raises(UserError, match="no 'image' feature"):
        built("keras:MobileNet", spec([Feature("x", "float", (3,))], [LABEL], classes=2))
