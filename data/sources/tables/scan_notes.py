"""What a scan of a table tells the user: conversions, missing values, columns left out."""

from collections.abc import Iterator, Sequence
from typing import Protocol

from tenfold.data.sources.tables.arrow_batches import TableReader
from tenfold.data.sources.tables.choose_columns import ChosenColumns
from tenfold.data.sources.tables.columns.table_column import TableColumn
from tenfold.data.sources.tables.columns.table_images import ImageColumn
from tenfold.data.units import plural

_SHOWN_COLUMNS = 3
_STORED_AS = {"zero": "0", "nan": "NaN"}


class Scan(Protocol):
    """The parts of a scan that notes are made of; see `TableScan`."""

    reader: TableReader
    columns: dict[str, TableColumn]
    images: dict[str, ImageColumn]
    chosen: ChosenColumns
    rows: int
    left_out: dict[str, None]
    counting: dict[str, bool]

    def where(self, rows: Sequence[int]) -> str:
        """Return the lines, or rows, of the table's rows."""

    def is_left_out(self, name: str) -> bool:
        """Whether a column without a name holds nothing but the number of the row."""


def missing_error(scan: Scan) -> str:
    """Return why the missing values cannot be stored as --missing says; "" if they can."""
    missing = [column for column in _used(scan) if column.missing]
    if not missing:
        return ""
    policy = missing[0].policy
    if policy == "fail":
        return (
            f"{_counted(scan, missing)}: --missing=drop leaves these rows out; zero, nan or keep "
            "(the record lacks the feature) stores them"
        )
    texts = [column for column in missing if column.kind == "bytes"]
    if policy == "nan" and texts:
        return (
            f"{_counted(scan, texts)}, and text cannot be NaN: --missing=drop leaves these rows "
            "out; zero stores empty text, keep a record without the feature"
        )
    return ""


def _counted(scan: Scan, columns: Sequence[TableColumn]) -> str:
    """Return the numbers and places of the columns' missing values."""
    texts = []
    for column in columns[:_SHOWN_COLUMNS]:
        dots = ", …" if column.missing > len(column.missing_rows) else ""
        where = scan.where(column.missing_rows)
        share = f"{plural(column.missing, 'missing value')} of {scan.rows:,}"
        texts.append(f"column '{column.name}' has {share} ({where}{dots})")
    more = len(columns) - _SHOWN_COLUMNS
    return "; ".join(texts) + (f"; and {plural(more, 'further column')}" if more > 0 else "")


def notes_of(scan: Scan) -> tuple[str, ...]:
    """Return the remarks on a finished scan, one line each."""
    return (
        *scan.reader.notes,
        *_left_out(scan),
        *_images(scan),
        *_converted(scan),
        *_missing(scan),
    )


def _used(scan: Scan) -> list[TableColumn]:
    return [
        column
        for name, column in scan.columns.items()
        if not column.is_empty and not scan.is_left_out(name)
    ]


def _left_out(scan: Scan) -> Iterator[str]:
    if scan.left_out:
        names = list(scan.left_out)
        dots = ", …" if len(names) > 10 else ""
        yield (
            f"left out {plural(len(names), 'column')} that --columns does not list: "
            f"{', '.join(names[:10])}{dots}"
        )
    for name, column in scan.columns.items():
        if name in scan.counting:
            if scan.is_left_out(name):
                what = "it is empty" if column.is_empty else "it only counts the rows"
                yield f"left out column '{name}', which has no name: {what}"
            else:
                yield f"column '{name}' has no name in the table"
        elif column.is_empty:
            yield f"left out column '{name}': all its values are missing"


def _images(scan: Scan) -> Iterator[str]:
    for name, column in scan.images.items():
        text = f"column '{name}': {plural(column.rows - column.missing, 'image')}"
        if column.feature != name:
            text += f", stored as '{column.feature}'"
        if column.missing:
            dots = ", …" if column.missing > len(column.missing_rows) else ""
            text += f"; {column.missing:,} missing ({scan.where(column.missing_rows)}{dots})"
        if name in scan.chosen.guessed:
            text += f"; --columns={name}:text,* keeps the paths as text"
        yield text
    for name in scan.chosen.without_images:
        yield f"column '{name}' is text: it looks like paths of images, but none of them exists"


def _converted(scan: Scan) -> Iterator[str]:
    for column in _used(scan):
        if column.remark:
            yield f"column '{column.name}': {column.remark}"
        if column.rounded:
            yield (
                f"column '{column.name}': {plural(column.rounded, 'whole number')} above 2^24 "
                f"rounded to float32; --columns={column.name}:int64,* or text keeps the digits"
            )
        if column.is_mostly_numbers:
            cell = column.odd_rows[0][1]
            places = scan.where([row for row, _ in column.odd_rows])
            dots = ", …" if column.odd_cells > len(column.odd_rows) else ""
            yield (
                f"column '{column.name}' is text, for {column.odd_cells:,} of its {column.rows:,} "
                f"cells that are no numbers, as '{cell:.40}' ({places}{dots}); "
                f"--columns={column.name}:float,* makes these records broken ones"
            )
        if column.empty_cells:
            cells = plural(column.empty_cells, "empty cell")
            yield f"column '{column.name}': {cells} stored as empty text"


def _missing(scan: Scan) -> Iterator[str]:
    for column in _used(scan):
        if not column.missing:
            continue
        where = f"column '{column.name}': {plural(column.missing, 'missing value')}"
        if column.policy == "drop":
            yield f"{where}: rows left out (--missing=drop)"
        elif column.policy == "keep":
            yield f"{where}: these records lack the feature (--missing=keep)"
        else:
            text = "empty text" if column.kind == "bytes" else _STORED_AS[column.policy]
            yield f"{where} stored as {text} (--missing={column.policy})"
