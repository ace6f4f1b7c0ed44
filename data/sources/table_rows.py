"""Rows of CSV, TSV, JSONL and Parquet files, as dicts of typed values."""

import csv
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from tenfold.data.errors import UserError

SUFFIXES: Final = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")

Row = dict[str, Any]


def read_rows(path: str) -> Iterator[Row]:
    """Yield the rows of a table file.

    A column of a CSV or TSV holds integers or floats if all its entries do, otherwise text.

    Raises:
      UserError: the content does not match the file's suffix.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".parquet":
        return _parquet_rows(path)
    if suffix in (".jsonl", ".ndjson"):
        return _json_rows(path)
    return _csv_rows(path, "\t" if suffix == ".tsv" else ",")


def _json_rows(path: str) -> Iterator[Row]:
    with open(path, encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise UserError(f"source '{path}', line {number}: not JSON ({error})") from error
            if not isinstance(row, dict):
                raise UserError(f"source '{path}', line {number}: each line must be an object")
            yield row


def _parquet_rows(path: str) -> Iterator[Row]:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise UserError(
            f"source '{path}' needs pyarrow: pip install 'tenfold[parquet]'"
        ) from error
    try:
        file = parquet.ParquetFile(path)
    except pyarrow.ArrowInvalid as error:
        raise UserError(f"source '{path}' is not a Parquet file ({error})") from error
    with file:
        for batch in file.iter_batches(batch_size=1024):
            yield from batch.to_pylist()


def _csv_rows(path: str, delimiter: str) -> Iterator[Row]:
    types = _column_types(path, delimiter)
    for _, row in _raw_csv_rows(path, delimiter):
        yield {name: types[name](text) for name, text in row.items()}


def _raw_csv_rows(path: str, delimiter: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield line number and unconverted texts of every row."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter=delimiter, restkey="")
        try:
            for row in reader:
                if None in row.values() or "" in row:
                    raise UserError(
                        f"source '{path}', line {reader.line_num}: the row does not have "
                        f"the {len(reader.fieldnames or [])} columns of the header"
                    )
                yield reader.line_num, row
        except (csv.Error, UnicodeDecodeError) as error:
            raise UserError(f"source '{path}', line {reader.line_num}: {error}") from error


def _column_types(path: str, delimiter: str) -> dict[str, Callable[[str], Any]]:
    """Return the converter of each column: the first of _CONVERTERS that accepts all entries."""
    indices: dict[str, int] = {}
    for _, row in _raw_csv_rows(path, delimiter):
        for name, text in row.items():
            indices[name] = _first_converter(text, start=indices.get(name, 0))
    return {name: _CONVERTERS[index] for name, index in indices.items()}


def _first_converter(text: str, *, start: int) -> int:
    """Return the index of the first converter, from `start` on, that accepts `text`."""
    index = start
    while True:
        try:
            _CONVERTERS[index](text)
            return index
        except ValueError:  # the last converter, str, accepts any text
            index += 1


def _integer(text: str) -> int:
    if text != text.strip() or (text[:1] == "0" and len(text) > 1):
        raise ValueError("a code, not a number")
    number = int(text)
    if not -(2**63) <= number < 2**63:
        raise ValueError("too large")
    return number


def _float(text: str) -> float:
    """Convert a number; an empty entry becomes NaN."""
    if len(text) > 1 and text[0] == "0" and text.isdecimal():
        raise ValueError("a code, not a number")
    return float(text) if text else math.nan


_CONVERTERS: Final = (_integer, _float, str)
