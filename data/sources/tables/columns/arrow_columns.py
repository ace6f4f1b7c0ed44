"""From Arrow arrays of any type to values that an Example can hold: numbers, text and bytes.

Structs are flattened (``a.x``), dictionaries decoded, dates and times become whole numbers,
decimals floats. ``{bytes, path}``, as Hugging Face stores images, becomes the bytes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tenfold.data.errors import UserError

_EPOCH: Final = "1970-01-01"
_UNITS: Final = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}


@dataclass(frozen=True, eq=False)
class Values:
    """The values of one column in n records.

    Attributes:
      items: All items in a row: int64, float64, large_binary, or of null.
      lengths: For each level of lists, from the outermost, the length of each list; the first
        has n entries. () for scalars, of which `items` has n.
      missing: Which of the n values are missing or have missing items, bool [n]; None for none.
      remark: A conversion that the user is told of, as "dates as days since 1970-01-01".
      is_text: Whether the items are text, not bytes.
    """

    items: pa.Array
    lengths: tuple[np.ndarray, ...] = ()
    missing: np.ndarray | None = None
    remark: str = ""
    is_text: bool = False

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self.lengths[0]) if self.lengths else len(self.items)


def flat_values(
    name: str, array: pa.Array, *, in_list: bool = False
) -> Iterator[tuple[str, Values]]:
    """Yield the columns of a column, each with its name: several for a struct.

    In lists NaN is a number, as it is in vectors; as a value of its own it is a missing one.

    Raises:
      UserError: an Example cannot hold the column's type.
    """
    kind = array.type
    if isinstance(array, pa.ExtensionArray):
        yield from flat_values(name, array.storage, in_list=in_list)
    elif pa.types.is_dictionary(kind):
        yield from flat_values(name, array.dictionary_decode(), in_list=in_list)
    elif pa.types.is_run_end_encoded(kind):
        yield from flat_values(name, pc.run_end_decode(array), in_list=in_list)
    elif _is_file(kind):
        yield from _files(name, array)
    elif pa.types.is_struct(kind):
        for index, child in enumerate(array.flatten()):
            yield from flat_values(f"{name}.{kind.field(index).name}", child, in_list=in_list)
    elif _is_list(kind):
        yield from _lists(name, array)
    else:
        values = _scalars(name, array)
        yield name, replace(values, missing=_nulls(array)) if in_list else values


def _is_file(kind: pa.DataType) -> bool:
    """Whether the type is ``{bytes, path}``, as Hugging Face stores images and audio."""
    if not pa.types.is_struct(kind) or kind.num_fields != 2:
        return False
    names = {kind.field(index).name for index in range(2)}
    return names == {"bytes", "path"} and _is_bytes(kind.field("bytes").type)


def _files(name: str, array: pa.Array) -> Iterator[tuple[str, Values]]:
    """Yield the bytes, or the paths where no bytes are stored."""
    columns = dict(zip((f.name for f in array.type), array.flatten(), strict=True))
    data = columns["bytes"]
    if len(data) and data.null_count == len(data) and columns["path"].null_count < len(data):
        yield name, _scalars(name, columns["path"])
    else:
        yield name, replace(_scalars(name, data), remark="{bytes, path} as bytes")


def _is_list(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or str(kind) == "binary_view"
    )


def _lists(name: str, array: pa.Array) -> Iterator[tuple[str, Values]]:
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    lengths = lengths.astype(np.int64)
    missing = _nulls(array)
    for inner_name, inner in flat_values(name, pc.list_flatten(array), in_list=True):
        holes = inner.missing
        if holes is not None:
            record = np.repeat(np.arange(len(array)), lengths)
            missing = np.zeros(len(array), bool) if missing is None else missing.copy()
            missing[record[holes]] = True
        yield inner_name, replace(inner, lengths=(lengths, *inner.lengths), missing=missing)


def _nulls(array: pa.Array) -> np.ndarray | None:
    """Return which entries are null, bool [n]; None for none."""
    return array.is_null().to_numpy(zero_copy_only=False) if array.null_count else None


def _scalars(name: str, array: pa.Array) -> Values:
    kind = array.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or str(kind) == "string_view":
        return Values(array.cast(pa.large_binary()), missing=_nulls(array), is_text=True)
    if _is_bytes(kind):
        return Values(array.cast(pa.large_binary()), missing=_nulls(array))
    if pa.types.is_null(kind):
        return Values(array, missing=np.ones(len(array), bool))
    if pa.types.is_decimal(kind):
        return _floats(array.cast(pa.float64()), f"{kind} as float")
    if pa.types.is_floating(kind):
        return _floats(array.cast(pa.float64()))
    if pa.types.is_boolean(kind):
        return _integers(array.cast(pa.int8()), "True and False as 1 and 0")
    if pa.types.is_integer(kind):
        return _integers(_in_int64(name, array))
    if unit := _time_unit(kind):
        width = pa.int32() if kind.bit_width == 32 else pa.int64()
        return _integers(array.cast(width), unit)
    raise UserError(
        f"column '{name}' is of Arrow's type {kind}, which has no place in an Example: leave it "
        "out by listing the others in --columns, or convert it"
    )


def _floats(array: pa.Array, remark: str = "") -> Values:
    """Return floats; NaN is a missing value, as pandas has it."""
    missing = np.isnan(array.to_numpy(zero_copy_only=False))
    return Values(array, missing=missing if missing.any() else None, remark=remark)


def _integers(array: pa.Array, remark: str = "") -> Values:
    return Values(array.cast(pa.int64()), missing=_nulls(array), remark=remark)


def _in_int64(name: str, array: pa.Array) -> pa.Array:
    if pa.types.is_uint64(array.type):
        most = pc.max(array).as_py()
        if most is not None and most >= 2**63:
            raise UserError(
                f"column '{name}' holds {most}, which is beyond int64: store it as text or float"
            )
    return array


def _time_unit(kind: pa.DataType) -> str:
    """Return how dates, times and durations are stored; "" for other types."""
    if pa.types.is_date32(kind):
        return f"dates as days since {_EPOCH}"
    if pa.types.is_date64(kind):
        return f"dates as milliseconds since {_EPOCH}"
    if pa.types.is_timestamp(kind):
        zone = " UTC" if kind.tz else ""
        return f"times as {_UNITS[kind.unit]} since {_EPOCH}{zone}"
    if pa.types.is_time(kind):
        return f"times of day as {_UNITS[kind.unit]}"
    if pa.types.is_duration(kind):
        return f"durations as {_UNITS[kind.unit]}"
    return ""
