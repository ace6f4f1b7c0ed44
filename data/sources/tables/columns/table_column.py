"""One column of a table: its type over all rows so far, and its values as they are stored.

A column's type may widen with later rows (whole numbers, then floats, then text), so a scan
compares the column's `spec` before and after, and reads the table again if it has changed.
"""

from dataclasses import replace
from math import prod
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tenfold.data.errors import UserError
from tenfold.data.format.columns import Column
from tenfold.data.sources.tables.columns.arrow_columns import Values
from tenfold.data.sources.tables.columns.column_spec import ColumnSpec
from tenfold.data.sources.tables.columns.stored_values import (
    are_one_hot,
    bytes_values,
    filled,
    fixed_shape,
    has_image_bytes,
    placeholders,
)
from tenfold.data.sources.tables.columns.text_cells import (
    BOOL,
    FLOAT,
    INT64,
    TEXT,
    BeyondInt64,
    numbers_among,
    parse_as,
    parse_cells,
    without_missing,
)

MISSING_POLICIES: Final = ("fail", "drop", "zero", "nan", "keep")
_KIND_OF_CELLS: Final = {INT64: "int64", FLOAT: "float", BOOL: "int64", TEXT: "bytes", "": ""}
# A column with at least this share of numbers was meant as one, in spite of other cells.
_MOSTLY: Final = 0.9
_SHOWN: Final = 3
# The first whole number that float32 cannot hold exactly follows it.
_EXACT_IN_FLOAT32: Final = float(2**24)


class TableColumn:
    """A column while its table is scanned; give it each batch's values in order with `take`.

    Attributes:
      name: The column's name in the table.
      feature: The name of the feature that it becomes.
      rows: Rows so far.
      missing: Rows so far whose value is missing.
      missing_rows: The first of them.
      ever_missing: Whether values were missing in this pass or the one before.
      classes: The number of each class of a label that is text, in the order of first rows.
      remark: How values were converted; "" for not at all.
      unusable: Why rows of the last batch cannot be used.
      dropped: Which rows of the last batch are dropped, bool [n]; None for none.
      rounded: Whole numbers that float32 cannot hold exactly.
      empty_cells: Cells of a column of text that are empty.
      odd_cells: Cells that make a column of numbers text; `odd_rows` has the first few.
    """

    def __init__(
        self, name: str, *, given: str = "", policy: str = "fail", feature: str = "",
        is_label: bool = False, one_hot: str = "never",
    ) -> None:  # fmt: skip
        self.name = name
        self.feature = feature or name
        self.is_label = is_label
        self.given = given
        self.policy = policy
        self.kind = ""
        self.remark = ""
        self.is_text = given == TEXT
        self.has_images = False
        self._cells = ""
        self._sizes: list[int | None] | None = None
        self._one_hot = one_hot
        self._is_one_hot = one_hot != "never"
        self.classes: dict[str, int] = {}
        self.ever_missing = False
        self.restart()

    def restart(self) -> None:
        """Prepare for another pass over the same rows: keep the type, count anew."""
        self.rows = self.missing = self.rounded = self.odd_cells = self.empty_cells = 0
        self.missing_rows: list[int] = []
        self.odd_rows: list[tuple[int, str]] = []
        self._counts_odd = True
        self.unusable: dict[int, str] = {}
        self.dropped: np.ndarray | None = None

    @property
    def is_empty(self) -> bool:
        """Whether all values so far are missing."""
        return self.kind == ""

    @property
    def spec(self) -> ColumnSpec:
        """How the column is stored, by the rows so far."""
        if self._stores_classes:
            return ColumnSpec(self.feature, "int64")
        kind = "float" if self._becomes_float else self.kind
        optional = self.policy == "keep" and self.ever_missing and not self.is_label
        return ColumnSpec(self.feature, kind, tuple(self._sizes or ()), optional)

    @property
    def _becomes_float(self) -> bool:
        return self.kind == "int64" and self.policy == "nan" and self.ever_missing

    @property
    def has_text_classes(self) -> bool:
        """Whether the column is a label whose classes are text."""
        return self.is_label and self.kind == "bytes" and not self._sizes

    @property
    def _stores_classes(self) -> bool:
        return self.has_text_classes or self.has_one_hot

    @property
    def has_one_hot(self) -> bool:
        """Whether the column is a label of one-hot vectors, stored as class indices."""
        is_vector = self.is_label and self.kind in ("int64", "float") and bool(self._sizes)
        sizes = self._sizes or [0]
        return is_vector and self._is_one_hot and len(sizes) == 1 and (sizes[0] or 0) > 1

    @property
    def num_one_hot(self) -> int:
        """The size of the one-hot vectors."""
        return (self._sizes or [0])[0] or 0

    def take(self, values: pa.Array | Values) -> Column:
        """Note a batch and return it as it is stored.

        `values` are cells of text whose type is to be found, or values of a known type.
        Raises:
          UserError: the values do not go with those before.
        """
        self.unusable = {}
        typed = values if isinstance(values, Values) else self._parsed(values)
        if self.given and isinstance(values, Values):
            typed = self._as_given(typed)
        self._merge(typed)
        typed = self._note_missing(typed)
        column = self._stored(typed)
        self.rows += len(typed)
        return column

    # --- types ---

    def _parsed(self, cells: pa.Array) -> Values:
        """Return cells of text in the type that all cells so far have."""
        cells = pc.fill_null(cells, "")
        if self.given in (INT64, FLOAT):
            return self._parsed_as_given(cells)
        if self.given != TEXT:
            before = self._cells
            try:
                self._cells, parsed = parse_cells(cells, before)
            except BeyondInt64 as error:
                raise self._beyond_int64(*error.args) from None
            if self._cells != TEXT:
                self.remark = "True and False as 1 and 0" if self._cells == BOOL else ""
                return _number_values(parsed, self._cells)
            self._count_odd(cells, was_number=before in (INT64, FLOAT))
            self.kind = ""  # numbers before are read again as text
        self.is_text = True
        if not self.is_label:
            self.empty_cells += int(pc.sum(pc.equal(cells, "")).as_py() or 0)
        else:
            cells = (
                without_missing(cells) if self.given != TEXT else pc.ascii_trim_whitespace(cells)
            )
            mask = pc.equal(pc.fill_null(cells, ""), "").to_numpy(zero_copy_only=False)
            return Values(cells.cast(pa.large_binary()), missing=mask if mask.any() else None)
        return Values(cells.cast(pa.large_binary()))

    def _parsed_as_given(self, cells: pa.Array) -> Values:
        parsed, wrong = parse_as(cells, self.given)
        noun = "whole number" if self.given == INT64 else "number"
        for row in np.nonzero(wrong)[0].tolist():
            self.unusable[row] = f"column '{self.name}' holds '{cells[row].as_py()}', no {noun}"
        values = _number_values(parsed, self.given)
        if values.missing is None or not wrong.any():
            return values
        missing = values.missing & ~wrong
        return replace(values, missing=missing if missing.any() else None)

    def _beyond_int64(self, row: int, text: str) -> UserError:
        return UserError(
            f"column '{self.name}', row {self.rows + row}: {text} is beyond int64: "
            f"--columns={self.name}:text,* keeps the digits, --columns={self.name}:float,* rounds"
        )

    def _count_odd(self, cells: pa.Array, *, was_number: bool) -> None:
        """Count the cells that are no numbers, as long as most cells are numbers."""
        if not self._counts_odd:
            return
        fits = numbers_among(cells)
        self._counts_odd = was_number or fits.mean() >= _MOSTLY
        for row in np.nonzero(~fits)[0][: _SHOWN - len(self.odd_rows)].tolist():
            self.odd_rows.append((self.rows + row, cells[row].as_py()))
        self.odd_cells += int((~fits).sum())

    @property
    def is_mostly_numbers(self) -> bool:
        """Whether a few cells alone make the column text."""
        few = self._counts_odd and 0 < self.odd_cells <= (1 - _MOSTLY) * self.rows
        return few and self._cells == TEXT

    def _as_given(self, values: Values) -> Values:
        """Return values of an own type in the type that the user gives."""
        items, kind = values.items, _kind(values)
        if kind in ("", self.given) or (self.given, kind) == (TEXT, "bytes"):
            return values
        if kind == "bytes" and values.is_text and not values.lengths:
            return self._parsed_as_given(items.cast(pa.large_string()).cast(pa.string()))
        if self.given == TEXT:
            return replace(values, items=items.cast(pa.string()).cast(pa.large_binary()))
        if kind == "int64":
            return replace(values, items=items.cast(pa.float64(), safe=False))
        try:
            return replace(values, items=items.cast(pa.int64()))
        except pa.ArrowInvalid as error:
            raise UserError(
                f"--columns={self.name}:{self.given}: the column's values do not fit ({error})"
            ) from None

    def _merge(self, values: Values) -> None:
        """Widen the column's kind and shape by a batch."""
        kind = _kind(values)
        self.remark = self.remark or values.remark
        self.is_text = self.is_text or values.is_text
        if not kind:
            return
        if {self.kind, kind} == {"int64", "float"}:
            kind = "float"
        elif self.kind not in ("", kind):
            raise UserError(
                f"column '{self.name}' holds {_noun(kind)} from row {self.rows} on, "
                f"{_noun(self.kind)} before: give it values of one type"
            )
        self.kind = kind
        self._merge_sizes(values)
        if kind == "bytes":
            self.has_images = self.has_images or has_image_bytes(values.items)

    def _merge_sizes(self, values: Values) -> None:
        present = None if values.missing is None else ~values.missing
        sizes: list[int | None] = []
        for level, lengths in enumerate(values.lengths):
            used = lengths if present is None or level else lengths[present]
            if not len(used):  # no lists here: the batch says nothing about this level
                known = self._sizes or []
                sizes.append(known[level] if level < len(known) else 0)
                continue
            sizes.append(int(used[0]) if (used == used[0]).all() else None)
        if self._sizes is None:
            self._sizes = sizes
        elif len(self._sizes) != len(sizes):
            raise UserError(
                f"column '{self.name}' holds lists in some rows, in others none or lists of "
                "lists: give it values of one shape"
            )
        else:
            self._sizes = [a if a == b else None for a, b in zip(self._sizes, sizes, strict=True)]
        if None in self._sizes[1:]:
            raise UserError(
                f"column '{self.name}' holds lists of lists of different lengths: give the inner "
                "ones one length, or write a function of your own (--source=file.py:function)"
            )
        if self.has_one_hot and self._one_hot == "auto":
            self._is_one_hot = are_one_hot(values)

    # --- missing values ---

    def _note_missing(self, values: Values) -> Values:
        if values.missing is None:
            return values
        rows = np.nonzero(values.missing)[0]
        if self.is_label and self.policy != "drop":
            for row in rows.tolist():
                self.unusable.setdefault(row, "its label is missing")
            return values
        self.missing += len(rows)
        self.ever_missing = self.ever_missing or len(rows) > 0
        self.missing_rows += (self.rows + rows[: _SHOWN - len(self.missing_rows)]).tolist()
        return values

    # --- storing ---

    def _stored(self, values: Values) -> Column:
        missing = values.missing
        self.dropped = missing if self.policy == "drop" else None
        spec, count = self.spec, len(values)
        present = ~missing if spec.optional and missing is not None else None
        if not self.kind or (_kind(values) == "" and not values.lengths):
            return placeholders(spec, count, present)
        if self.has_text_classes:
            return Column("int64", self._class_codes(values))
        if self.kind == "bytes":
            return bytes_values(values, spec, present)
        numbers = self._numbers(values, spec)
        if self.has_one_hot:
            vectors = fixed_shape(numbers, values, (self.num_one_hot,))
            return Column("int64", vectors.argmax(axis=1).astype(np.int64))
        if not values.lengths:
            return Column(spec.kind, numbers, present=present)
        if spec.shape[0] is not None:
            shape = tuple(size or 0 for size in spec.shape)
            return Column(spec.kind, fixed_shape(numbers, values, shape), shape, present=present)
        lengths = values.lengths[0] * prod(size or 0 for size in spec.shape[1:])
        return Column(spec.kind, numbers, (None,), lengths=lengths, present=present)

    def _class_codes(self, values: Values) -> np.ndarray:
        """Return the number of each label's class, in the order of first rows; 0 if missing."""
        encoded = pc.dictionary_encode(pc.fill_null(values.items, b""))
        names = [
            name.decode("utf-8", "backslashreplace") for name in encoded.dictionary.to_pylist()
        ]
        codes = [self.classes.setdefault(name, len(self.classes)) for name in names]
        return np.array(codes, np.int64)[encoded.indices.to_numpy(zero_copy_only=False)]

    def _numbers(self, values: Values, spec: ColumnSpec) -> np.ndarray:
        """Return all items as the spec's dtype, missing ones filled as the policy says."""
        items = values.items
        if pa.types.is_null(items.type):
            items = items.cast(pa.float64())
        if spec.kind == "int64" and not self.has_one_hot:
            return filled(items.cast(pa.int64())).to_numpy(zero_copy_only=False)
        items = items.cast(pa.float64(), safe=False)
        if self.policy != "nan":
            items = filled(items)
        numbers = items.to_numpy(zero_copy_only=False)
        if values.missing is not None and not values.lengths and self.policy != "nan":
            numbers = np.where(values.missing, 0.0, numbers)  # NaN is missing, too
        return self._in_float32(numbers, values)

    def _in_float32(self, numbers: np.ndarray, values: Values) -> np.ndarray:
        with np.errstate(over="ignore"):
            narrow = numbers.astype(np.float32)
        large = np.abs(numbers) > _EXACT_IN_FLOAT32
        if large.any():
            whole = large & (narrow != numbers) & (np.trunc(numbers) == numbers)
            too_large = np.isinf(narrow) & ~np.isinf(numbers)
            self.rounded += int((whole & ~too_large & (np.abs(numbers) < 2.0**63)).sum())
            for row in np.nonzero(too_large)[0].tolist():
                record = row if not values.lengths else _record_of(values, row)
                self.unusable[record] = (
                    f"column '{self.name}' holds {numbers[row]}, too large for float32"
                )
        return narrow


def _record_of(values: Values, item: int) -> int:
    """Return the record that holds an item of a list."""
    for lengths in reversed(values.lengths):
        item = int(np.searchsorted(np.cumsum(lengths), item, side="right"))
    return item


def _kind(values: Values) -> str:
    """Return the kind of the items; "" if they are all missing."""
    kind = values.items.type
    if pa.types.is_null(kind) or (
        values.missing is not None and values.missing.all() and not values.lengths
    ):
        return ""
    if pa.types.is_integer(kind):
        return "int64"
    return "float" if pa.types.is_floating(kind) else "bytes"


def _noun(kind: str) -> str:
    return "text" if kind == "bytes" else "numbers"


def _number_values(parsed: pa.Array, cells: str) -> Values:
    """Return the values of cells that were parsed; NaN counts as missing."""
    missing = None
    if cells == FLOAT:
        mask = np.isnan(parsed.to_numpy(zero_copy_only=False))
        missing = mask if mask.any() else None
    elif parsed.null_count:
        missing = parsed.is_null().to_numpy(zero_copy_only=False)
    return Values(parsed, missing=missing)
