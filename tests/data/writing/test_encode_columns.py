"""Columns are encoded as the bytes that the encoder of single records makes."""

import io
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tenfold.data.format.columns import (
    Column,
    Columns,
    bytes_column,
    list_column,
    number_column,
)
from tenfold.data.format.example import encode_lists
from tenfold.data.format.tfrecord import fingerprint64, frame
from tenfold.data.sources.base import Encoded, UnusableRecord
from tenfold.data.sources.features import encode_features
from tenfold.data.writing.encode_columns import encode_columns

INT64 = st.one_of(st.integers(0, 200), st.integers(-3, 2**21), st.integers(-(2**63), 2**63 - 1))
FLOATS = st.floats(width=32)
BYTES = st.one_of(st.binary(max_size=5), st.binary(max_size=300), st.just(b"x" * 20_000))


def encoded_image(side: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (side, side)).save(out, "PNG")
    return out.getvalue()


@st.composite
def column(draw: st.DrawFn, count: int) -> Column:
    present = None
    if draw(st.integers(0, 3)) == 0:
        present = np.array(draw(st.lists(st.booleans(), min_size=count, max_size=count)), bool)
    kind = draw(st.sampled_from(["float", "int64", "bytes", "image"]))
    form = draw(st.sampled_from(["scalar", "vector", "list"])) if kind != "image" else "scalar"
    width = draw(st.integers(0, 3)) if form == "vector" else 1
    item: st.SearchStrategy[Any] = {
        "float": FLOATS,
        "int64": INT64,
        "bytes": BYTES,
        "image": st.one_of(
            st.binary(max_size=3), st.integers(1, 3).map(encoded_image), st.just(b"\xff\xd8\xff")
        ),
    }[kind]
    lengths = None
    if form == "list":
        # Of an empty list of bytes the encoder of single records does not know the kind.
        least = int(kind == "bytes")
        counts = st.lists(st.integers(least, 3), min_size=count, max_size=count)
        lengths = np.array(draw(counts), np.int64)
    total = count * width if lengths is None else int(lengths.sum())
    items = draw(st.lists(item, min_size=total, max_size=total))
    shape = {"scalar": (), "vector": (width,), "list": (None,)}[form]
    if kind in ("bytes", "image"):
        if form == "vector" and not width:
            shape, items = (), [b""] * count
        return bytes_column(items, kind=kind, shape=shape, lengths=lengths, present=present)
    values = np.array(items, np.float32 if kind == "float" else np.int64)
    if lengths is not None:
        return list_column(values, lengths, present)
    return number_column(values.reshape(count, *shape), present)


@st.composite
def tables(draw: st.DrawFn) -> Columns:
    count = draw(st.integers(0, 12))
    names = draw(st.lists(st.sampled_from(["a", "label", "z" * 130, "ä"]), unique=True))
    unusable = draw(st.sets(st.integers(0, count - 1), max_size=2)) if count else set()
    columns = {name: draw(column(count)) for name in names}
    return Columns(count, columns, dict.fromkeys(unusable, "broken"))


def one_by_one(columns: Columns, index: int) -> Encoded | UnusableRecord:
    if index in columns.unusable:
        return UnusableRecord(columns.unusable[index])
    row = {name: column.row(index) for name, column in columns.columns.items()}
    values = {name: value for name, value in row.items() if value is not None}
    try:
        return encode_features(values)
    except UnusableRecord as error:
        return error


@settings(max_examples=150, deadline=None)
@given(tables())
def test_columns_encode_as_their_rows_do(columns):
    rows = [one_by_one(columns, index) for index in range(columns.num_records)]
    good = {index: row for index, row in enumerate(rows) if isinstance(row, Encoded)}
    labels = [row.label for row in good.values() if row.label is not None]

    block = encode_columns(columns)

    assert block.frames == b"".join(frame(row.payload) for row in good.values())
    assert block.records == len(good)
    assert block.fingerprint == sum(fingerprint64(row.payload) for row in good.values())
    assert block.label_counts == {label: labels.count(label) for label in labels}
    assert block.unusable == {
        index: str(row) for index, row in enumerate(rows) if isinstance(row, UnusableRecord)
    }
    lists = {name for name, column in columns.columns.items() if column.lengths is not None}
    expected = {tuple(f for f in row.schema if f.name not in lists) for row in good.values()}
    found = {tuple(f for f in schema if f.name not in lists) for _, schema in block.schemas}
    assert found == expected


def test_empty_lists_of_bytes_are_bytes():
    column = bytes_column([b"x"], shape=(None,), lengths=np.array([0, 1, 0]))
    frames = encode_columns(Columns(3, {"a": column})).frames
    empty, full = (encode_lists({"a": ("bytes", data)}) for data in (b"", b"\n\1x"))
    assert frames == frame(empty) + frame(full) + frame(empty)


def test_schema_of_lists_has_their_length_where_all_agree():
    even = list_column(np.arange(4), np.array([2, 2]))
    uneven = list_column(np.arange(4), np.array([1, 3]))
    ((_, schema),) = encode_columns(Columns(2, {"even": even, "uneven": uneven})).schemas
    assert [feature.shape for feature in schema] == [(2,), (None,)]


def test_varying_images_of_a_block_give_their_schemas_with_the_first_record():
    images = bytes_column([encoded_image(2), encoded_image(3), encoded_image(2)], kind="image")
    schemas = encode_columns(Columns(3, {"image": images})).schemas
    assert [(first, schema[0].shape) for first, schema in schemas] == [
        (0, (2, 2, 3)),
        (1, (3, 3, 3)),
    ]
