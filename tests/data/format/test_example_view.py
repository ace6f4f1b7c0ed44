"""Views of a feature in Examples of every writer, and in damaged bytes."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from tenfold.data.format import example_view as module
from tenfold.data.format.example import (
    decode_example,
    encode_example,
    feature_entry,
    field,
    to_list,
)
from tenfold.data.format.example_view import split_feature

NUMBERS = st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1)
VALUES = st.lists(st.binary(max_size=300)) | NUMBERS
OTHERS = st.dictionaries(st.text(max_size=20).filter(lambda name: name != "image"), VALUES)


def entries(features: Mapping[str, Any], names: Sequence[str]) -> list[bytes]:
    """Return the entry of each feature, in the order of `names`."""
    return [feature_entry(name, *to_list(name, features[name])[:2]) for name in names]


def cut(payload: bytes) -> tuple[bytes, bytes]:
    value, rest = split_feature(memoryview(payload), "image")
    return bytes(value), rest


def walk(payload: bytes) -> tuple[bytes, dict[str, Any]] | None:
    """Return the value and the other features, by walking the fields; None for an error."""
    try:
        value, rest = module._walk(memoryview(payload), "image")
        return bytes(value), decode_example(rest)
    except ValueError:
        return None


@pytest.mark.timeout(240)
@settings(max_examples=300, deadline=None)
@given(OTHERS, st.binary(max_size=300) | st.just(b"x" * 70_000), st.randoms(), st.booleans())
def test_split_feature_in_any_order_of_entries(
    others: dict[str, list[Any]], value: bytes, draw: Any, apart: bool
) -> None:
    whole = {"image": [value], **others}
    names = list(whole)
    draw.shuffle(names)  # protobuf writes a map in any order
    found = entries(whole, names)
    payload = b"".join(field(1, entry) for entry in found) if apart else field(1, b"".join(found))
    assert cut(payload)[0] == value
    assert {
        name: values for name, (_, values) in decode_example(cut(payload)[1]).items()
    } == others
    # The common layout is matched, not walked.
    quick = module._match_common_layout(memoryview(payload), "image")
    assert quick is not None or (apart and others)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_example_matches_as_it_walks(data: st.DataObject) -> None:
    whole = bytearray(encode_example({"at": 7, "image": b"image" * 30, "label": [1, 2]}))
    positions = st.integers(0, len(whole) - 1).map(
        lambda index: index if index < 40 else index - len(whole)
    )
    for position in data.draw(st.lists(positions, min_size=1, max_size=3)):
        whole[position] = data.draw(st.integers(0, 255))
    expected = walk(bytes(whole))
    quick = module._match_common_layout(memoryview(bytes(whole)), "image")
    assume(quick is not None)
    assert quick is not None
    if expected is None:
        # The rest is damaged: parsing it raises.
        with pytest.raises(ValueError, match=r"not an Example|is cut|utf-8"):
            decode_example(quick[1])
    else:
        assert (bytes(quick[0]), decode_example(quick[1])) == expected


def test_last_of_two_entries_counts() -> None:
    features = {"image": [b"first"], "label": [3]}
    found = entries(features, ["image", "label"]) + entries({"image": [b"last"]}, ["image"])
    assert cut(field(1, b"".join(found)))[0] == b"last"


@pytest.mark.parametrize("values", [None, [], [b"a", b"b"], [1], [0.5]])
def test_feature_without_one_value_raises(values: list[Any] | None) -> None:
    payload = encode_example({"label": 1} if values is None else {"label": 1, "image": values})
    with pytest.raises(ValueError, match=r"feature 'image' has . bytes values, not one"):
        cut(payload)


@given(st.binary(max_size=60), st.integers(0, 100))
@example(b"", 100)
def test_bytes_of_no_example_raise(noise: bytes, end: int) -> None:
    whole = encode_example({"label": 3, "image": b"image" * 5})
    if end < len(whole):
        with pytest.raises(ValueError, match=r"not an Example|feature 'image' has 0"):
            cut(whole[:end])
    for data in (noise, whole[:end] + noise):
        try:
            value, rest = cut(data)
            decode_example(rest)  # a damaged rest raises only when it is parsed
        except ValueError:
            continue
        assert value in data
        with pytest.raises(ValueError, match="feature 'image' has 0 bytes values"):
            cut(rest)


def test_unknown_fields_are_skipped() -> None:
    whole = encode_example({"image": b"image"})
    odd = b"\x78\x05" + b"\x7d" + b"1234" + b"\x79" + b"12345678" + b"\xfa\x01\x02ab"
    assert cut(odd + whole + odd) == (b"image", b"\n\x00")


def test_value_past_the_end_raises() -> None:
    (entry,) = entries({"image": [b"image" * 5]}, ["image"])
    with pytest.raises(ValueError, match=r"a field of .* bytes is cut"):
        cut(field(1, entry[:-3]))
