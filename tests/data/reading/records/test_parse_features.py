"""Features of every shape come out of serialized records as they went in."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tenfold.data.format.example import encode_example
from tenfold.data.format.manifest import Feature, Manifest, ShardInfo, Split
from tenfold.data.reading.feeding.feature_specs import feature_specs
from tenfold.data.reading.feeding.feed_options import FeedOptions
from tenfold.data.reading.feeding.input_spec import input_spec
from tenfold.data.reading.records.parse_features import parse_features


def manifest_of(*features: Feature) -> Manifest:
    shard = ShardInfo("train-00000-of-00001.tfrecord", 1, 100, 1, 1)
    return Manifest(1, (1,), features, (Split("train", (shard,)),))


@pytest.mark.parametrize(
    ("feature", "rows"),
    [
        (Feature("f", "int64", (None,)), [[1, 2], [], [3]]),
        (Feature("f", "float", (None, 2)), [[[1.0, 2.0]], [], [[3.0, 4.0], [5.0, 6.0]]]),
        (Feature("f", "int64", (2, None)), [[[1], [2]], [[], []], [[3, 4], [5, 6]]]),
        (Feature("f", "int64", (2, None, 2)), [[[[1, 2]], [[3, 4]]], [[], []]]),
        (Feature("f", "float", (2,)), [[1.0, 2.0], [3.0, 4.0]]),
        (Feature("f", "int64"), [7, 8]),
    ],
    ids=["list", "pairs", "two lists", "two lists of pairs", "fixed", "scalar"],
)
def test_features_of_any_shape_are_parsed(feature: Feature, rows: list[Any]) -> None:
    dtype = np.int64 if feature.kind == "int64" else np.float32
    payloads = [encode_example({"f": np.array(row, dtype).ravel()}) for row in rows]
    parsed = parse_features(tf.constant(payloads), [feature], {})["f"]
    found = parsed.to_list() if isinstance(parsed, tf.RaggedTensor) else parsed.numpy().tolist()
    assert found == rows
    spec = feature_specs(input_spec(manifest_of(feature)))["f"]
    assert spec.is_compatible_with(parsed)


def test_lists_of_texts_are_parsed() -> None:
    rows = [[b"a"], [b"", b"b"]]
    payloads = [encode_example({"f": row}) for row in rows] + [encode_example({"g": 1})]
    feature = Feature("f", "bytes", (None,), optional=True)
    assert parse_features(tf.constant(payloads), [feature], {})["f"].to_list() == [*rows, []]


@pytest.mark.parametrize(
    ("feature", "default", "found"),
    [
        (Feature("f", "int64", (), optional=True), -1, [-1, 5]),
        (Feature("f", "float", (2,), optional=True), 0.5, [[0.5, 0.5], [1.0, 2.0]]),
        (Feature("f", "bytes", (), optional=True), "none", [b"none", b"text"]),
        (Feature("f", "int64", (None,), optional=True), None, [[], [5]]),
    ],
    ids=["int64", "floats", "text", "list"],
)
def test_missing_feature_has_its_default(feature: Feature, default: Any, found: Any) -> None:
    feed = FeedOptions(default={} if default is None else {"f": default})
    spec = input_spec(manifest_of(feature), feed=feed)
    value = found[1].decode() if isinstance(found[1], bytes) else found[1]
    payloads = [encode_example({"g": 1}), encode_example({"f": value})]
    parsed = parse_features(tf.constant(payloads), [feature], spec.defaults)["f"]
    listed = parsed.to_list() if isinstance(parsed, tf.RaggedTensor) else parsed.numpy().tolist()
    assert listed == found


def sequence_example(label: int, steps: dict[str, list[list[Any]]]) -> bytes:
    def feature(values: list[Any]) -> tf.train.Feature:
        if values and isinstance(values[0], float):
            return tf.train.Feature(float_list=tf.train.FloatList(value=values))
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

    lists = {
        name: tf.train.FeatureList(feature=[feature(step) for step in values])
        for name, values in steps.items()
    }
    example = tf.train.SequenceExample(
        context=tf.train.Features(feature={"label": feature([label])}),
        feature_lists=tf.train.FeatureLists(feature_list=lists),
    )
    return example.SerializeToString()


def test_sequences_are_ragged_in_time() -> None:
    features = (
        Feature("label", "int64"),
        Feature("token", "int64", (None,), sequence=True),
        Feature("point", "float", (None, 2), sequence=True),
        Feature("links", "int64", (None, None), sequence=True),
    )
    payloads = [
        sequence_example(
            1, {"token": [[4], [5]], "point": [[1.0, 2.0]], "links": [[7, 8], [], [9]]}
        ),
        sequence_example(2, {"token": [], "point": [[3.0, 4.0], [5.0, 6.0]], "links": [[1]]}),
    ]
    parsed = parse_features(tf.constant(payloads), features, {})
    assert parsed["label"].numpy().tolist() == [1, 2]
    assert parsed["token"].to_list() == [[4, 5], []]
    assert parsed["point"].to_list() == [[[1.0, 2.0]], [[3.0, 4.0], [5.0, 6.0]]]
    assert parsed["links"].to_list() == [[[7, 8], [], [9]], [[1]]]
    specs = feature_specs(input_spec(manifest_of(*features)))
    assert all(specs[name].is_compatible_with(value) for name, value in parsed.items())


def test_wrong_number_of_values_is_refused() -> None:
    payload = encode_example({"f": [1.0, 2.0, 3.0]})
    with pytest.raises(tf.errors.InvalidArgumentError, match="wrong number of values"):
        parse_features(tf.constant([payload]), [Feature("f", "float", (None, 2))], {})
