"""The built-in models: their shapes, and errors for shards that they cannot train on."""

from dataclasses import replace

import keras
import numpy as np
import pytest

from tenfold.data.errors import UserError
from tenfold.data.format.manifest import Feature
from tenfold.models.model_spec import ModelSpec
from tenfold.models.train_config import TrainConfig
from tenfold.models.training.build import build_model

IMAGE = Feature("image", "image", (None, None, 3))
EMBEDDING = Feature("embedding", "float", (48,))
COUNT = Feature("count", "int64", ())


def spec(*features: Feature, image_shape: tuple[int, int, int] | None = None) -> ModelSpec:
    return ModelSpec(features, image_shape, 10, 32, 5, 1, seed=0)


def built(name: str, model_spec: ModelSpec) -> keras.Model:
    return build_model(TrainConfig("shards", "run", model=name), model_spec)


@pytest.mark.parametrize("shape", [(8, 8, 1), (5, 7, 3), (1, 1, 1), (64, 48, 3)])
@pytest.mark.parametrize("name", ["cnn", "mlp"])
def test_models_take_images_of_any_size(name: str, shape: tuple[int, int, int]) -> None:
    model = built(name, spec(IMAGE, image_shape=shape))
    assert model(np.zeros((2, *shape), "float32")).shape == (2, 10)
    assert model.compiled
    assert model.optimizer.built


def test_equal_seeds_give_equal_weights() -> None:
    one, two = (built("cnn", spec(IMAGE, image_shape=(8, 8, 1))) for _ in range(2))
    assert one.weights
    pairs = zip(one.get_weights(), two.get_weights(), strict=True)
    assert all(np.array_equal(a, b) for a, b in pairs)


def test_resnet50_needs_32_pixels() -> None:
    with pytest.raises(UserError, match="--image_size=32 or more"):
        built("resnet50", spec(IMAGE, image_shape=(8, 8, 1)))
    model = built("resnet50", spec(IMAGE, image_shape=(32, 32, 3)))
    assert model(np.zeros((1, 32, 32, 3), "float32")).shape == (1, 10)


def test_head_is_one_dense_layer() -> None:
    model = built("head", spec(EMBEDDING))
    assert model(np.zeros((2, 48), "float32")).shape == (2, 10)
    assert model.count_params() == 48 * 10 + 10


def test_mlp_joins_several_inputs() -> None:
    model = built("mlp", spec(EMBEDDING, COUNT))
    batch = {"embedding": np.zeros((2, 48), "float32"), "count": np.zeros((2,), "int64")}
    assert model(batch).shape == (2, 10)


@pytest.mark.parametrize("name", ["cnn", "resnet50"])
def test_image_model_without_images_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="no 'image' feature"):
        built(name, spec(EMBEDDING))


@pytest.mark.parametrize("name", ["cnn", "mlp"])
def test_model_without_target_is_refused(name: str) -> None:
    without = replace(spec(IMAGE, image_shape=(8, 8, 1)), num_classes=0)
    with pytest.raises(UserError, match="has nothing to predict"):
        built(name, without)
