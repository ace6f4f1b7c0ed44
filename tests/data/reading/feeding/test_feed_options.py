"""The choice of inputs, targets, lengths and defaults, and what is refused."""

import pytest

from tenfold.data.errors import UserError
from tenfold.data.format.manifest import Feature, Manifest, ShardInfo, Split
from tenfold.data.format.statistics.feature_statistics import FeatureStatistics, SplitStatistics
from tenfold.data.reading.feeding.feed_options import (
    LONGEST,
    FeedOptions,
    parse_defaults,
    parse_pad,
)
from tenfold.data.reading.feeding.input_spec import input_spec

FEATURES = (
    Feature("age", "int64", (), optional=True),
    Feature("boxes", "float", (None, 4)),
    Feature("grid", "int64", (None, None)),
    Feature("history", "int64", (None,)),
    Feature("image", "image", (None, None, 3)),
    Feature("label", "int64"),
    Feature("mask", "image", (None, None, 1)),
    Feature("price", "float"),
)
INPUTS = ("boxes", "history", "image", "mask", "price")


def manifest_of(statistics: SplitStatistics | None = None, records: int = 10) -> Manifest:
    shard = ShardInfo("train-00000-of-00001.tfrecord", records, 1000, 1, 1)
    return Manifest(1, (1,), FEATURES, (Split("train", (shard,), (), statistics),))


def test_roles_of_features() -> None:
    feed = FeedOptions(
        inputs=("history", "price"), target=("label",), pad={"history": 5}, default={"age": 0}
    )
    spec = input_spec(manifest_of(), feed=feed, also=("age",))
    assert [feature.name for feature in spec.features] == ["age", "history", "label", "price"]
    assert [(f.name, f.shape) for f in spec.inputs] == [("history", (5,)), ("price", ())]
    assert [feature.name for feature in spec.targets] == ["label"]
    assert spec.defaults == {"age": 0}


def test_mask_has_the_size_of_its_image() -> None:
    feed = FeedOptions(inputs=("image",), target=("mask",), masks=("mask",))
    spec = input_spec(manifest_of(), (32, 48), feed)
    assert spec.image_shapes == {"image": (32, 48, 3), "mask": (32, 48, 1)}
    assert (spec.image, spec.image_shape) == ("image", (32, 48, 3))


def test_longest_list_is_known_by_the_statistics() -> None:
    found = FeatureStatistics("history", minimum=0, maximum=1, mean=0, std=0, length=(0, 2.5, 9))
    feed = FeedOptions(inputs=("history",), pad={"history": LONGEST})
    assert input_spec(manifest_of(SplitStatistics(10, (found,))), feed=feed).lengths == {
        "history": 9
    }
    for statistics in (None, SplitStatistics(9, (found,))):
        with pytest.raises(UserError, match="does not know the longest list of split 'train'"):
            input_spec(manifest_of(statistics), feed=feed)


@pytest.mark.parametrize(
    ("feed", "message"),
    [
        (
            FeedOptions(inputs=("histroy",)),
            "there is no feature 'histroy': did you mean 'history'",
        ),
        (FeedOptions(inputs=("age",)), "'age' is missing in some records: .* --default=age:0"),
        (FeedOptions(inputs=("age",), default={"age": "x"}), "--default=age:x: .* is int64"),
        (FeedOptions(inputs=("grid",)), r"'grid' has shape \[any, any\]: where several"),
        (FeedOptions(inputs=INPUTS, pad={"price": 3}), r"--pad: feature 'price' has shape \[\]"),
        (FeedOptions(inputs=INPUTS, masks=("price",)), "--mask=price: the feature is float"),
        (FeedOptions(inputs=INPUTS, boxes=("price",)), "--boxes=price: the feature is float"),
        (FeedOptions(inputs=("price",), weight_feature="image"), "not one number a record"),
    ],
)
def test_option_that_does_not_fit_is_refused(feed: FeedOptions, message: str) -> None:
    with pytest.raises(UserError, match=message):
        input_spec(manifest_of(), feed=feed)


def test_texts_of_flags() -> None:
    assert parse_pad(["a:50", "b:c:max"]) == {"a": 50, "b:c": LONGEST}
    assert parse_defaults(["age:-1", "name:a:b"]) == {"age": "-1", "name": "a:b"}
    for text in ("a", ":5", "a:", "a:0", "a:-1", "a:x"):
        with pytest.raises(UserError, match="write NAME:50"):
            parse_pad([text])
    for text in ("a", ":5"):
        with pytest.raises(UserError, match="write NAME:VALUE"):
            parse_defaults([text])


def test_prediction_needs_no_targets() -> None:
    feed = FeedOptions(target=("click",), weight_feature="w", pad={"a": 5, "click": 2})
    found = feed.inputs_only(["a", "b", "w"])
    assert (found.inputs, found.target, found.pad) == (("a", "b"), (), {"a": 5})


def test_weight_is_no_input() -> None:
    with pytest.raises(UserError, match="'w' is the weight"):
        FeedOptions(inputs=("w",), weight_feature="w")
