"""How a CSV file is written: its encoding, delimiter and header, found in its first megabyte."""

import codecs
import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tenfold.data.errors import UserError

SAMPLE_BYTES: Final = 1 << 20
_SAMPLE_ROWS: Final = 200
_DELIMITERS: Final = (",", ";", "\t", "|")
_NAMED_DELIMITERS: Final = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|"}
# Longer marks first: that of UTF-32 begins as that of UTF-16.
_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclass(frozen=True)
class CsvOptions:
    """What the user says of a CSV file; "" and None leave it to be found."""

    delimiter: str = ""
    encoding: str = ""
    no_header: bool | None = None


@dataclass(frozen=True)
class CsvDialect:
    """How a CSV file is written.

    Attributes:
      encoding: The name of Python's codec.
      delimiter: The character between cells.
      names: The columns' names without spaces around them; "" for a column without a name.
      header_lines: Lines of the file before the first row of data.
      notes: Remarks for the user on what was found.
    """

    encoding: str
    delimiter: str
    names: tuple[str, ...]
    header_lines: int
    notes: tuple[str, ...] = ()


def find_dialect(
    path: str, sample: bytes, *, is_whole: bool, default: str, options: CsvOptions,
    names: Sequence[str] = (),
) -> CsvDialect:  # fmt: skip
    """Return the dialect of a CSV file.

    Args:
      path: The file's path, for errors.
      sample: Its first bytes.
      is_whole: Whether these are all.
      default: The delimiter that the file's suffix stands for.
      options: What the user says.
      names: The names of the columns in order, for a file without a header.

    Raises:
      UserError: the dialect cannot be told, or names of columns are missing, repeated or numbers.
    """
    encoding = options.encoding or _encoding_of(path, sample)
    text = _decode(path, sample, encoding, is_whole=is_whole)
    delimiter, note = _delimiter_of(path, text, default, options, is_whole=is_whole)
    rows, ends = _rows(text, delimiter, is_whole=is_whole)
    if not rows:
        raise UserError(f"source '{path}' has no rows")
    if options.no_header:
        found, lines = tuple(names) or _numbered(len(rows[0])), 0
        if len(found) != len(rows[0]):
            raise UserError(
                f"source '{path}' has {len(rows[0])} columns, but --columns names {len(found)}: "
                "with --no_header it names all, in order"
            )
    else:
        found, lines = _header(path, rows, named_by_numbers=options.no_header is not None), ends[0]
    _check_names(path, found)
    notes = [note] if note else []
    if encoding not in ("utf-8", "utf-8-sig") and not options.encoding:
        notes.append(f"the encoding is {encoding}, as the file's first bytes tell")
    return CsvDialect(encoding, delimiter, found, lines, tuple(notes))


def _encoding_of(path: str, sample: bytes) -> str:
    for mark, encoding in _MARKS:
        if sample.startswith(mark):
            return encoding
    if b"\0" in sample[:4096]:
        raise UserError(
            f"source '{path}' is no text in UTF-8 (it has zero bytes): "
            "give its --encoding, as --encoding=utf-16-le, if it is a table"
        )
    return "utf-8"


def _decode(path: str, sample: bytes, encoding: str, *, is_whole: bool) -> str:
    try:
        decoder = codecs.getincrementaldecoder(encoding)()
    except LookupError:
        raise UserError(
            f"--encoding={encoding} is unknown: give one of Python's, as utf-8, latin-1, utf-16"
        ) from None
    try:
        return decoder.decode(sample, final=is_whole)
    except UnicodeError as error:
        begin = getattr(error, "start", 0)
        raise encoding_error(path, sample.count(b"\n", 0, begin) + 1, encoding) from None


def encoding_error(path: str, line: int, encoding: str) -> UserError:
    """Return the error for a line that cannot be decoded."""
    name = encoding.removesuffix("-sig").upper()
    return UserError(
        f"source '{path}', line {line}: it is not {name}: give the file's --encoding, as "
        "--encoding=latin-1, cp1252 or utf-16"
    )


def _delimiter_of(
    path: str, text: str, default: str, options: CsvOptions, *, is_whole: bool
) -> tuple[str, str]:
    """Return the delimiter, and a note if it is an unexpected one that was found."""
    if options.delimiter:
        given = _NAMED_DELIMITERS.get(options.delimiter, options.delimiter)
        if len(given) != 1:
            raise UserError(
                f"--delimiter={options.delimiter}: give one character, or the word tab"
            )
        return given, ""
    if _fits(text, default, is_whole=is_whole):
        return default, ""
    fitting = [mark for mark in _DELIMITERS if _fits(text, mark, is_whole=is_whole)]
    if len(fitting) == 1:
        return fitting[0], f"the delimiter is {_shown(fitting[0])}, as every row tells"
    header = text.lstrip("\r\n").partition("\n")[0]
    others = [mark for mark in _DELIMITERS if mark in header and mark != default]
    if fitting or (others and default not in header):
        marks = " or ".join(_shown(mark) for mark in fitting or others)
        raise UserError(
            f"source '{path}': its first line is '{header.strip():.60}', so the delimiter may be "
            f"{marks}: give --delimiter"
        )
    return default, ""


def _shown(mark: str) -> str:
    return "a tab" if mark == "\t" else f"'{mark}'"


def _fits(text: str, delimiter: str, *, is_whole: bool) -> bool:
    """Whether all rows of the sample have the same number of cells, two or more."""
    rows, _ = _rows(text, delimiter, is_whole=is_whole)
    return bool(rows) and len(rows[0]) > 1 and len({len(row) for row in rows[1:]}) <= 1 and (
        len(rows) == 1 or len(rows[1]) - len(rows[0]) in (0, 1)
    )  # fmt: skip


def _rows(text: str, delimiter: str, *, is_whole: bool) -> tuple[list[list[str]], list[int]]:
    """Return the first rows that are not blank, and the line on which each ends."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    rows, ends = [], []
    try:
        for row in reader:
            if row:
                rows.append(row)
                ends.append(reader.line_num)
            if len(rows) > _SAMPLE_ROWS:
                return rows, ends
    except csv.Error:  # a cell longer than csv takes
        return rows, ends
    if not is_whole and len(rows) > 1:  # the last row may be cut
        rows.pop()
    return rows, ends


def _header(path: str, rows: list[list[str]], *, named_by_numbers: bool) -> tuple[str, ...]:
    """Return the names in the first row; one more if all rows have one cell more."""
    names = [name.strip() for name in rows[0]]
    numbers = [name for name in names if _is_number(name)]
    if numbers and not named_by_numbers:
        raise UserError(
            f"source '{path}': the first line has the number {numbers[0]} as the name of a "
            "column: give --no_header if it is a row of data, --no_header=false if it is a header"
        )
    body = rows[1:]
    if body and all(len(row) == len(names) + 1 for row in body):
        if not any(row[-1].strip() for row in body):  # a delimiter at the end of each row
            return (*names, "")
        if _counts([row[0] for row in body]):  # an index without a name, as R writes it
            return ("", *names)
    return tuple(names)


def _counts(cells: Sequence[str]) -> bool:
    """Whether cells are the numbers 0, 1, 2 … or 1, 2, 3 …"""
    return any(
        list(cells) == [str(number) for number in range(first, first + len(cells))]
        for first in (0, 1)
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text.lower().lstrip("+-") not in ("nan", "inf", "infinity")


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(f"column_{number}" for number in range(1, count + 1))


def _check_names(path: str, names: tuple[str, ...]) -> None:
    seen: dict[str, int] = {}
    for number, name in enumerate(names, 1):
        if name and name in seen:
            raise UserError(
                f"source '{path}': column '{name}' is there twice (columns {seen[name]} and "
                f"{number}): rename one of them"
            )
        seen[name] = number
