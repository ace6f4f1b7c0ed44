"""`unet`: masks of the image's size, their classes, and what it refuses."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tenfold.data.errors import UserError
from tenfold.data.format.manifest import Feature
from tests.models.builtin.model_batches import built, metrics, reload, spec, train

IMAGE = Feature("image", "image", (None, None, 3))
MASK = Feature("mask", "image", (None, None, 1))


def data(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Images whose pixels are of class 1 where they are bright."""
    x = np.random.default_rng(0).uniform(0, 255, (2, height, width, 3)).astype("float32")
    return x, (x.mean(axis=-1, keepdims=True) > 127).astype("uint8")


@pytest.mark.parametrize("size", [(16, 16), (37, 50), (1, 3)])
def test_mask_has_the_size_of_the_image(size: tuple[int, int]) -> None:
    model = built("unet:3", spec([IMAGE], [MASK], image_shape=(*size, 3)))
    x, _ = data(*size)
    assert model(x).shape == (2, *size, 3)


def test_unet_learns_bright_pixels(tmp_path: Path) -> None:
    model = built("unet:2", spec([IMAGE], [MASK], image_shape=(18, 20, 3)))
    x, y = data(18, 20)
    first, *_, last = train(model, x, tf.constant(y), steps=20)
    assert last < first
    model.reset_metrics()
    model.compute_metrics(x, tf.constant(y), model(x))
    found = np.argmax(model(x), axis=-1)[..., None]
    assert metrics(model)["accuracy"] == pytest.approx(np.mean(found == y))
    overlaps = [np.sum((found == c) & (y == c)) / np.sum((found == c) | (y == c)) for c in (0, 1)]
    assert metrics(model)["mean_iou"] == pytest.approx(np.mean(overlaps))
    reload(model, x, tmp_path)


def test_unet_without_number_of_classes_is_refused() -> None:
    with pytest.raises(UserError, match="--model=unet:21"):
        built("unet", spec([IMAGE], [MASK], image_shape=(16, 16, 3)))


@pytest.mark.parametrize("targets", [(), (Feature("label", "int64"),), (MASK, MASK)])
def test_unet_without_one_mask_is_refused(targets: tuple[Feature, ...]) -> None:
    with pytest.raises(UserError, match=r"predicts one mask.*--target=NAME"):
        built("unet:2", spec([IMAGE], targets, image_shape=(16, 16, 3)))


def test_mask_of_three_channels_is_refused() -> None:
    mask = Feature("mask", "image", (16, 16, 3))
    with pytest.raises(UserError, match="masks of one channel; the image 'mask' has 3"):
        built("unet:2", spec([IMAGE], [mask], image_shape=(16, 16, 3)))
