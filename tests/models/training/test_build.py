"""What a model function is told of tensors that a user's function makes."""

from collections.abc import Callable
from typing import Any

from tenfold.data.format.manifest import Feature
from tenfold.data.format.statistics.feature_statistics import FeatureStatistics, SplitStatistics
from tenfold.data.reading.feeding.feed import Feed
from tenfold.data.reading.feeding.input_spec import InputSpec
from tenfold.models.model_spec import ModelSpec
from tenfold.models.train_config import TrainConfig
from tenfold.models.training.build import make_model_spec

LABEL, PRICE = Feature("label", "int64"), Feature("price", "float")
STATISTICS = SplitStatistics(
    9, (FeatureStatistics("label", minimum=0, maximum=2), FeatureStatistics("price", mean=50.0))
)


def spec_of(function: Callable[..., Any]) -> ModelSpec:
    read = InputSpec((LABEL, PRICE), {}, num_classes=3, targets=(LABEL,), inputs=(PRICE,))
    config = TrainConfig("shards", "run", model="mlp")
    feed = Feed(read, function)
    return make_model_spec(config, feed, steps_per_epoch=1, statistics=STATISTICS)


def test_mapped_label_keeps_its_classes() -> None:
    spec = spec_of(lambda features: (features["price"], features["label"]))
    assert spec.targets == (LABEL,)
    assert spec.statistics is not None
    label, x = spec.statistics.feature("label"), spec.statistics.feature("x")
    assert (label and label.maximum, x and x.mean) == (2, 50.0)


def test_changed_feature_loses_its_statistics() -> None:
    spec = spec_of(lambda features: ({"price": features["price"] / 50}, features["label"] + 1))
    assert spec.targets == (Feature("y", "int64"),)
    assert spec.statistics == SplitStatistics(9, ())
