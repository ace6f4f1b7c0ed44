"""From cells of text, as of a CSV file, to numbers.

A cell is missing if it is empty or one of MISSING_WORDS. Digits after a leading zero are a code,
as a postal code, not a number. Spaces around numbers are ignored.
"""

from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

MISSING_WORDS: Final = (
    "", "n/a", "N/A", "#N/A", "NA", "<NA>", "null", "NULL", "Null", "None", "none", "nan", "NaN",
    "NAN", "-nan", "-NaN",
)  # fmt: skip

# The types of a column's cells, each of which takes what the one before it takes, except for bool.
INT64: Final = "int64"
FLOAT: Final = "float"
BOOL: Final = "bool"
TEXT: Final = "text"
_WIDER: Final = {"": (INT64, FLOAT, BOOL, TEXT), INT64: (INT64, FLOAT, TEXT), FLOAT: (FLOAT, TEXT),
                 BOOL: (BOOL, TEXT), TEXT: (TEXT,)}  # fmt: skip
_BOOLS: Final = pa.array(["True", "False", "true", "false", "TRUE", "FALSE"])
_TRUE: Final = pa.array(["True", "true", "TRUE"])
_NUMBER: Final = r"^\s*[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?\s*$"
_WHOLE: Final = r"^\s*[-+]?[0-9]+\s*$"
_INT64_END: Final = float(2**63)


class BeyondInt64(ValueError):
    """A cell holds a whole number beyond int64; the arguments are the row and the cell."""


def parse_cells(cells: pa.StringArray, known: str) -> tuple[str, pa.Array]:
    """Return the type of cells, and the cells in that type, null where missing.

    Args:
      cells: The cells, without nulls other than missing values.
      known: The type of the cells before them; "" at the start, or if all are missing.

    Returns:
      The narrowest type that fits these cells and those before, and an int64, float64 or string
      array. Cells of text are unchanged: none is missing. The type is still "" if all are missing.

    Raises:
      BeyondInt64: a whole number has no place in int64, in a column of numbers.
    """
    kinds = [kind for kind in _WIDER[known] if kind != TEXT]
    for kind in kinds:  # as they are: quick, and most columns have no missing values
        parsed = _parse(cells, kind)
        if parsed is not None:
            return kind, parsed
    trimmed = without_missing(cells) if kinds else cells
    if kinds and trimmed.null_count == len(trimmed):
        return known, pa.nulls(len(cells), pa.int64())
    for kind in kinds:
        parsed = _parse(trimmed, kind)
        if parsed is not None:
            return kind, parsed
    return TEXT, cells


def without_missing(cells: pa.Array) -> pa.Array:
    """Return the cells without spaces around them, null where missing."""
    trimmed = pc.ascii_trim_whitespace(cells)
    words = pa.array(MISSING_WORDS, trimmed.type)
    return pc.if_else(pc.is_in(trimmed, value_set=words), pa.scalar(None, trimmed.type), trimmed)


def parse_as(cells: pa.Array, kind: str) -> tuple[pa.Array, np.ndarray]:
    """Return cells in the type that the user gives, and which cells are no such value.

    Args:
      cells: The cells.
      kind: ``int64`` or ``float``.

    Returns:
      The values, null where missing or wrong, and bool [n].
    """
    trimmed = without_missing(cells)
    parsed = _cast(trimmed, kind)
    if parsed is not None:
        return parsed, np.zeros(len(cells), bool)
    fits = pc.match_substring_regex(trimmed, _WHOLE if kind == INT64 else _NUMBER)
    good = pc.if_else(pc.fill_null(fits, True), trimmed, pa.scalar(None, trimmed.type))
    if kind == INT64:
        values = [_whole(text) for text in good.to_pylist()]  # rare: some cells are wrong
        parsed = pa.array([value[0] for value in values], pa.int64())
    else:
        parsed = good.cast(pa.float64())
    wrong = pc.and_(parsed.is_null(), trimmed.is_valid())
    return parsed, wrong.to_numpy(zero_copy_only=False)


def _whole(text: str | None) -> tuple[int | None]:
    number = None if text is None else int(text)
    return (number if number is not None and -(2**63) <= number < 2**63 else None,)


def numbers_among(cells: pa.Array) -> np.ndarray:
    """Return which cells are numbers or missing, bool [n]."""
    trimmed = without_missing(cells)
    fits = pc.match_substring_regex(trimmed, _NUMBER)
    return pc.fill_null(fits, True).to_numpy(zero_copy_only=False)


def _parse(cells: pa.Array, kind: str) -> pa.Array | None:
    """Return cells in a type; None if one has another."""
    if kind == BOOL:
        if not pc.all(pc.is_in(cells, value_set=_BOOLS), skip_nulls=False).as_py():
            valid = cells.drop_null()
            if len(valid) == len(cells) or not pc.all(pc.is_in(valid, value_set=_BOOLS)).as_py():
                return None
        flags = pc.is_in(cells, value_set=_TRUE).cast(pa.int64())
        return pc.if_else(cells.is_valid(), flags, pa.scalar(None, pa.int64()))
    parsed = _cast(cells, kind)
    if parsed is None or _has_codes(cells):
        return None
    if kind == FLOAT:
        _check_whole_numbers(cells, parsed)
    return parsed


def _cast(cells: pa.Array, kind: str) -> pa.Array | None:
    try:
        return cells.cast(pa.int64() if kind == INT64 else pa.float64())
    except pa.ArrowInvalid:
        return None


def _has_codes(cells: pa.Array) -> bool:
    """Whether a cell is a zero followed by a digit (``007``) or by an x (``0x1f``)."""
    if not len(cells):
        return False
    _, offsets_buffer, data_buffer = cells.buffers()
    if data_buffer is None or not data_buffer.size:
        return False
    width = np.int64 if pa.types.is_large_string(cells.type) else np.int32
    offsets = np.frombuffer(offsets_buffer, width)[cells.offset : cells.offset + len(cells) + 1]
    data = np.frombuffer(data_buffer, np.uint8)
    begins = offsets[:-1][np.diff(offsets) > 1]
    zeros = begins[data[begins] == ord("0")]
    second = data[zeros + 1]
    return bool((((second >= ord("0")) & (second <= ord("9"))) | (second == ord("x"))).any())


def _check_whole_numbers(cells: pa.Array, parsed: pa.Array) -> None:
    """Refuse whole numbers beyond int64, which a float would round."""
    values = parsed.to_numpy(zero_copy_only=False)
    for row in np.nonzero(np.abs(values) >= _INT64_END)[0].tolist():
        text = cells[row].as_py()
        if text.strip().lstrip("+-").isdecimal():
            raise BeyondInt64(row, text)
