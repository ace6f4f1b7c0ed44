"""Features beside the image are the same parsed in Python or by TensorFlow."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tenfold.data.format.example import encode_example
from tenfold.data.format.manifest import Feature
from tenfold.data.reading.records.image_records import (
    MAX_VALUES,
    GraphFeatureParser,
    PythonFeatureParser,
    are_small,
    non_image_parser,
)
from tenfold.data.reading.records.parse_features import parse_features

FEATURES = (
    Feature("box", "float", (2, 2)),
    Feature("label", "int64", ()),
    Feature("pair", "int64", (2,)),
)
INT64 = st.integers(-(2**63), 2**63 - 1)
FLOAT32 = st.floats(width=32, allow_nan=False)
EXAMPLES = st.fixed_dictionaries(
    {
        "box": st.lists(FLOAT32, min_size=4, max_size=4),
        "label": INT64,
        "pair": st.lists(INT64, min_size=2, max_size=2),
        "more": st.binary(),
    }
)


@pytest.mark.timeout(120)
@settings(max_examples=50, deadline=None)
@given(st.lists(EXAMPLES, max_size=5))
def test_python_parser_equals_tensorflow(rows: list[dict[str, Any]]) -> None:
    examples = [encode_example(row) for row in rows]
    parser = PythonFeatureParser(FEATURES)
    columns = parser.columns([parser.row(example) for example in examples])
    if not rows:
        assert [column.shape for column in columns] == [(0, 2, 2), (0,), (0, 2)]
        return
    expected = parse_features(tf.constant(examples), FEATURES, {})
    for feature, column in zip(FEATURES, columns, strict=True):
        np.testing.assert_array_equal(column, expected[feature.name].numpy(), strict=True)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"label": 3}, "feature 'id' has 0 int64 values, the manifest says 1 int64"),
        ({"id": [1, 2], "label": 3}, "feature 'id' has 2 int64 values, the manifest says 1 int64"),
        ({"id": 0.5, "label": 3}, "feature 'id' has 1 float values, the manifest says 1 int64"),
        ({"id": b"", "label": 3}, "feature 'id' has 1 bytes values, the manifest says 1 int64"),
    ],
)
def test_values_unlike_the_manifest_are_named(row: dict[str, Any], message: str) -> None:
    parser = PythonFeatureParser([Feature("id", "int64"), Feature("label", "int64")])
    with pytest.raises(ValueError, match=f"^{message}$"):
        parser.row(encode_example(row))


def test_graph_parser_refuses_what_is_no_example() -> None:
    whole = encode_example({"label": [3] * 40})
    parser = non_image_parser([Feature("label", "int64", (40,))], {})
    assert isinstance(parser, GraphFeatureParser)
    assert parser.row(whole) == whole
    for damaged in (whole[:-1], whole[:2] + b"\xff" + whole[3:]):
        with pytest.raises(ValueError, match="not an Example"):
            parser.row(damaged)


def test_only_few_numbers_are_small() -> None:
    assert isinstance(non_image_parser([], {}), PythonFeatureParser)
    assert are_small([])
    assert are_small([Feature("label", "int64"), Feature("box", "float", (MAX_VALUES - 1,))])
    assert not are_small([Feature("label", "int64"), Feature("box", "float", (MAX_VALUES,))])
    assert not are_small([Feature("words", "int64", (None,))])
    assert not are_small([Feature("name", "bytes")])
