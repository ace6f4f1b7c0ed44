"""Values of Arrow in the form in which they are stored: columns of numpy arrays."""

from collections.abc import Iterator
from math import prod
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tenfold.data.format.columns import Column
from tenfold.data.sources.tables.columns.arrow_columns import Values
from tenfold.data.sources.tables.columns.column_spec import ColumnSpec

_IMAGE_BYTES: Final = (0xFF, 0x89)  # the first byte of a JPEG, of a PNG


def filled(items: pa.Array) -> pa.Array:
    """Return numbers with 0 in place of null."""
    return pc.fill_null(items, 0) if items.null_count else items


def fixed_shape(items: np.ndarray, values: Values, shape: tuple[int, ...]) -> np.ndarray:
    """Return items of records of one shape, [n, *shape]; zeros for records without a list."""
    count, size = len(values), prod(shape)
    if len(items) == count * size:
        return items.reshape(count, *shape)
    full = np.zeros((count, size), items.dtype)
    full[values.lengths[0] == shape[0]] = items.reshape(-1, size)
    return full.reshape(count, *shape)


def placeholders(spec: ColumnSpec, count: int, present: np.ndarray | None) -> Column:
    """Return a column of `count` missing values."""
    shape = tuple(size or 0 for size in spec.shape) if None not in spec.shape else (None,)
    lengths = np.zeros(count, np.int64) if None in shape else None
    if spec.kind == "bytes":
        items = 0 if lengths is not None else count * prod(size or 0 for size in shape)
        offsets = np.zeros(items + 1, np.int64)
        return Column("bytes", np.zeros(0, np.uint8), shape, lengths, offsets, present)
    kind = spec.kind or "float"
    dtype = np.int64 if kind == "int64" else np.float32
    size = (0,) if lengths is not None else (count, *(size or 0 for size in shape))
    return Column(kind, np.zeros(size, dtype), shape, lengths, None, present)


def bytes_values(values: Values, spec: ColumnSpec, present: np.ndarray | None) -> Column:
    """Return the column of text or bytes, scalar or in lists."""
    data, offsets = binary_buffers(values.items)
    if not values.lengths:
        return Column("bytes", data, (), None, offsets, present)
    sizes, count = spec.shape, len(values)
    items = prod(size or 0 for size in sizes[1:])
    if sizes[0] is None:
        return Column("bytes", data, (None,), values.lengths[0] * items, offsets, present)
    shape = tuple(size or 0 for size in sizes)
    if len(offsets) - 1 != count * prod(shape):  # records without a list hold empty items
        lengths = np.zeros((count, prod(shape)), np.int64)
        lengths[values.lengths[0] == shape[0]] = np.diff(offsets).reshape(-1, prod(shape))
        offsets = np.concatenate([[0], np.cumsum(lengths.ravel())]).astype(np.int64)
    return Column("bytes", data, shape, None, offsets, present)


def binary_buffers(items: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Return the data of a binary array, uint8, and the offsets of its items, int64 [n + 1]."""
    if items.null_count or pa.types.is_null(items.type):
        items = pc.fill_null(items.cast(pa.large_binary()), b"")
    _, offsets_buffer, data_buffer = items.buffers()
    if not len(items) or offsets_buffer is None:
        return np.zeros(0, np.uint8), np.zeros(len(items) + 1, np.int64)
    offsets = np.frombuffer(offsets_buffer, np.int64)[items.offset : items.offset + len(items) + 1]
    data = np.frombuffer(data_buffer or b"", np.uint8)[offsets[0] : offsets[-1]]
    return data, offsets - offsets[0]


def are_one_hot(values: Values) -> bool:
    """Whether all vectors of a batch are zeros with a single 1."""
    size = int(values.lengths[0].max(initial=0))
    items = pc.fill_null(values.items.cast(pa.float64(), safe=False), 0.0)
    vectors = fixed_shape(items.to_numpy(zero_copy_only=False), values, (size,))
    if values.missing is not None:
        vectors = vectors[~values.missing]
    return bool(((vectors == 1).sum(axis=1) == 1).all() and np.isin(vectors, (0, 1)).all())


def has_image_bytes(items: pa.Array) -> bool:
    """Whether an item begins with the first byte of a JPEG or PNG."""
    data, offsets = binary_buffers(items)
    begins = offsets[:-1][np.diff(offsets) > 0]
    return bool(len(begins) and np.isin(data[begins], _IMAGE_BYTES).any())


def first_texts(values: pa.Array | Values) -> Iterator[str]:
    """Yield the values of a column of text that are not empty."""
    items: Any = values.items if isinstance(values, Values) else values
    for item in items:
        text = item.as_py()
        if text:
            yield text.decode("utf-8", "replace") if isinstance(text, bytes) else text
