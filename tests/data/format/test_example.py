"""Our encoding of Examples against protobuf's, fuzzed."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenfold.data.format.example import count_values, decode_example, encode_example, walk_example

INT64 = st.integers(-(2**63), 2**63 - 1)
FLOAT32 = st.floats(width=32, allow_nan=False)
VALUES = st.one_of(
    st.lists(st.binary(max_size=300)),
    st.lists(INT64, min_size=1),
    st.lists(FLOAT32, min_size=1),
)
FEATURES = st.dictionaries(st.text(max_size=20), VALUES, max_size=6)


def reference(features: dict[str, list[Any]]) -> Any:
    """Return the protobuf message of `features`."""
    import tensorflow as tf

    example = tf.train.Example()
    for name, values in features.items():
        feature = example.features.feature[name]
        if not values:
            feature.float_list.SetInParent()
        elif isinstance(values[0], bytes):
            feature.bytes_list.value.extend(values)
        elif isinstance(values[0], int):
            feature.int64_list.value.extend(values)
        else:
            feature.float_list.value.extend(values)
    return example


@pytest.mark.timeout(240)
@settings(max_examples=500, deadline=None)
@given(FEATURES)
def test_encoding_equals_protobuf(features: dict[str, list[Any]]) -> None:
    expected = reference(features)
    payload = encode_example(features)
    # Lengths, not bytes: protobuf writes the features in another order.
    assert len(payload) == expected.ByteSize()
    assert type(expected).FromString(payload) == expected
    decoded = decode_example(payload)
    assert {name: values for name, (_, values) in decoded.items()} == features
    for name, kind, packed in walk_example(payload):
        assert count_values(kind, packed) == len(features[name])


@pytest.mark.parametrize(
    ("value", "kind", "values"),
    [
        (7, "int64", [7]),
        (True, "int64", [1]),
        (-1, "int64", [-1]),
        (0.5, "float", [0.5]),
        ([1, 0.5], "float", [1.0, 0.5]),
        ("né", "bytes", ["né".encode()]),
        (b"\0", "bytes", [b"\0"]),
        ([[1, 2], [3, 4]], "int64", [1, 2, 3, 4]),
        (np.arange(3, dtype=np.uint8), "int64", [0, 1, 2]),
        (np.float64(0.25), "float", [0.25]),
        (np.array(["a", "bc"]), "bytes", [b"a", b"bc"]),
        (np.array([b"a", b"bc"], dtype=object), "bytes", [b"a", b"bc"]),
        (np.zeros((2, 2), np.float16), "float", [0.0] * 4),
        (np.array([], np.int64), "int64", []),
        ([], "float", []),
    ],
)
def test_values_keep_kind_and_content(value: Any, kind: str, values: list[Any]) -> None:
    assert decode_example(encode_example({"x": value})) == {"x": (kind, values)}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "NoneType"),
        ([1, "a"], "int and str"),
        ([[1], [1, 2]], "ragged"),
        (2**63, "64-bit"),
        (1e300, "float32"),
        (np.zeros(2, complex), "complex128"),
        ({"a": 1}, "dict"),
    ],
)
def test_unsupported_values_are_refused(value: Any, words: str) -> None:
    with pytest.raises(ValueError, match=rf"'x'.*{words}"):
        encode_example({"x": value})


@st.composite
def damaged_examples(draw: st.DrawFn) -> bytes:
    """Examples with some bytes removed or replaced."""
    whole = encode_example(draw(FEATURES))
    begin = draw(st.integers(0, len(whole)))
    end = begin + draw(st.integers(0, 20))
    return whole[:begin] + draw(st.binary(max_size=20)) + whole[end:]


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200) | damaged_examples())
def test_damaged_example_decodes_or_raises(payload: bytes) -> None:
    types = {"bytes": bytes, "float": float, "int64": int}
    try:
        found = decode_example(payload)
    except ValueError:
        found = {}
    for name, (kind, values) in found.items():
        assert all(type(value) is types[kind] for value in values), (name, kind)
