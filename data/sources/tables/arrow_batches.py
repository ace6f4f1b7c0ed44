"""The rows of a table's files as Arrow record batches, in blocks of bounded size.

The cells of CSV and TSV files come as text; JSONL, Parquet and Arrow files bring their own types.
"""

import codecs
import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import IO, Any, Final, cast

import pyarrow as pa
import pyarrow.csv
import pyarrow.ipc
import pyarrow.json
import pyarrow.parquet

from tenfold.data.errors import UserError
from tenfold.data.sources.tables.csv_dialect import (
    SAMPLE_BYTES,
    CsvDialect,
    CsvOptions,
    encoding_error,
    find_dialect,
)
from tenfold.data.sources.tables.table_files import TableFile

_BLOCK_BYTES: Final = 4 << 20
# Rows of images are large: a batch of them holds fewer rows.
_BATCH_BYTES: Final = 32 << 20
_BATCH_ROWS: Final = 1 << 16
# Beyond it, rows are named by number alone: finding their line takes a pass over the file.
_MAX_LINE_LOOKUP: Final = 5_000_000
# A whole number of 19 digits or more as the value of a field or an item of a list of numbers.
_LONG_NUMBER: Final = re.compile(rb"(?:\"\s*:|\d\s*,|\[)\s*(-?[0-9]{19,})\s*[,\]}]")


@dataclass
class TableReader:
    """Reads the files of one table.

    Attributes:
      csv: What the user says of CSV files.
      names: The names of the columns of a CSV file without a header; () numbers them.
      notes: Remarks on the files, once each.
    """

    csv: CsvOptions = field(default_factory=CsvOptions)
    names: Sequence[str] = ()
    notes: dict[str, None] = field(default_factory=dict)
    _dialects: dict[str, CsvDialect] = field(default_factory=dict)

    def batches(self, file: TableFile) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a file, with its partitions as columns of text.

        Raises:
          UserError: the file is damaged or of another format.
        """
        read = {
            "CSV": self._csv, "TSV": self._csv, "JSONL": self._json,
            "Parquet": _parquet, "Arrow": _arrow,
        }[file.format]  # fmt: skip
        with _named_errors(file):
            for batch in read(file):
                for begin in range(0, batch.num_rows, rows_at_once(batch)):
                    yield _with_partitions(batch.slice(begin, rows_at_once(batch)), file)

    def _dialect(self, file: TableFile) -> CsvDialect:
        if file.path not in self._dialects:
            with _open(file) as stream:
                sample = stream.read(SAMPLE_BYTES + 1)
            dialect = find_dialect(
                file.path,
                sample[:SAMPLE_BYTES],
                is_whole=len(sample) <= SAMPLE_BYTES,
                default="\t" if file.format == "TSV" else ",",
                options=self.csv,
                names=self.names,
            )
            self.notes.update(dict.fromkeys(dialect.notes))
            self._dialects[file.path] = dialect
        return self._dialects[file.path]

    def _csv(self, file: TableFile) -> Iterator[pa.RecordBatch]:
        dialect = self._dialect(file)
        numbers = [str(number) for number in range(len(dialect.names))]
        ragged: list[Any] = []

        def refuse(row: Any) -> str:
            ragged.append(row)
            return "error"

        try:
            with _open(file) as stream:
                reader = pyarrow.csv.open_csv(
                    stream,
                    read_options=pyarrow.csv.ReadOptions(
                        column_names=numbers,
                        skip_rows=dialect.header_lines,
                        encoding=dialect.encoding.removesuffix("-sig"),
                        block_size=_BLOCK_BYTES,
                    ),
                    parse_options=pyarrow.csv.ParseOptions(
                        delimiter=dialect.delimiter,
                        newlines_in_values=True,
                        invalid_row_handler=refuse,
                    ),
                    convert_options=pyarrow.csv.ConvertOptions(
                        column_types=dict.fromkeys(numbers, pa.string())
                    ),
                )
                for batch in reader:
                    yield batch.rename_columns(list(dialect.names))
        except pa.ArrowInvalid as error:
            if ragged:
                raise self._ragged(file, dialect) from None
            if "Empty CSV file" in str(error):
                return
            if "straddling" in str(error):
                raise UserError(
                    f"source '{file.path}': a row is longer than {_BLOCK_BYTES >> 20} MiB, as "
                    "after a quote that does not end: mend it, or write the table as Parquet"
                ) from None
            if "UTF8" in str(error):
                raise encoding_error(file.path, _undecodable(file), dialect.encoding) from None
            raise
        except UnicodeError:
            raise encoding_error(
                file.path, _undecodable(file, dialect.encoding), dialect.encoding
            ) from None

    def _ragged(self, file: TableFile, dialect: CsvDialect) -> UserError:
        expected = len(dialect.names)
        for line, row in _csv_lines(file, dialect):
            if len(row) != expected:
                return UserError(
                    f"source '{file.path}', line {line}: the row does not have the {expected} "
                    f"columns of the header, but {len(row)}"
                )
        return UserError(f"source '{file.path}': a row does not have {expected} columns")

    def _json(self, file: TableFile) -> Iterator[pa.RecordBatch]:
        for line, block in _line_blocks(file):
            yield from _parse_json(file, line, block).to_batches()

    def where(self, file: TableFile, rows: Iterable[int]) -> str:
        """Return ``line 5`` or ``lines 5, 9`` for rows of a file (``row 4`` for binary files)."""
        wanted = sorted(set(rows))
        if file.format in ("Parquet", "Arrow") or (wanted and wanted[-1] > _MAX_LINE_LOOKUP):
            return _listed("row", wanted)
        if file.format == "JSONL":
            with _open(file) as stream:
                filled = (n for n, text in enumerate(_lines(stream), 1) if text.strip())
                return _listed("line", _at(filled, wanted))
        lines = (line for line, _ in _csv_lines(file, self._dialect(file)))
        return _listed("line", _at(lines, wanted))


def _at(numbers: Iterable[int], wanted: Sequence[int]) -> list[int]:
    """Return the numbers at the ascending positions `wanted`."""
    end = wanted[-1] + 1 if wanted else 0
    chosen = set(wanted)
    return [number for at, number in enumerate(islice(numbers, end)) if at in chosen]


def _listed(word: str, numbers: Sequence[int]) -> str:
    shown = ", ".join(f"{number:,}" for number in numbers)
    return f"{word}{'s' if len(numbers) > 1 else ''} {shown}"


@contextmanager
def _named_errors(file: TableFile) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowKeyError, EOFError) as error:
        text = " ".join(str(error).split())
        raise UserError(
            f"source '{file.path}' is not a {file.format} file, or damaged ({text:.200})"
        ) from error
    except OSError as error:
        if error.errno is not None:
            raise
        text = " ".join(str(error).split())  # Arrow's own, as of a damaged Parquet or gzip file
        raise UserError(
            f"source '{file.path}' is not a {file.format} file, or damaged ({text:.200})"
        ) from error


def _open(file: TableFile) -> IO[bytes]:
    """Open a file for reading, decompressed as its suffix says."""
    stream: IO[bytes] = pa.input_stream(file.path, compression="detect")
    return stream


def _lines(stream: IO[bytes]) -> Iterator[bytes]:
    return iter(io.BufferedReader(cast(Any, stream), 1 << 20))


def _csv_lines(file: TableFile, dialect: CsvDialect) -> Iterator[tuple[int, list[str]]]:
    """Yield the last line and the cells of each row of data; slow, for messages."""
    with _open(file) as stream:
        text = codecs.getreader(dialect.encoding)(stream, "replace")
        reader = csv.reader(text, delimiter=dialect.delimiter)
        for row in reader:
            if row and reader.line_num > dialect.header_lines:
                yield reader.line_num, row


def _undecodable(file: TableFile, encoding: str = "utf-8") -> int:
    """Return the number of the first line that is not text in `encoding`."""
    number = 0
    with _open(file) as stream:
        decoder = codecs.getincrementaldecoder(encoding)()
        for number, line in enumerate(_lines(stream), 1):
            try:
                decoder.decode(line)
            except UnicodeError:
                return number
    return number


def rows_at_once(batch: pa.RecordBatch) -> int:
    """Return how many rows of a batch to hold in memory at once."""
    row_bytes = batch.get_total_buffer_size() / max(batch.num_rows, 1)
    return max(1, min(_BATCH_ROWS, int(_BATCH_BYTES / max(row_bytes, 1))))


def _with_partitions(batch: pa.RecordBatch, file: TableFile) -> pa.RecordBatch:
    for name, value in file.partitions:
        if name not in batch.schema.names:
            column = pa.repeat(pa.scalar(value, pa.string()), batch.num_rows)
            batch = batch.append_column(name, column)
    return batch


def _parquet(file: TableFile) -> Iterator[pa.RecordBatch]:
    with pyarrow.parquet.ParquetFile(file.path, memory_map=True) as parquet:
        schema = parquet.schema_arrow
        sizes = [parquet.metadata.row_group(i) for i in range(parquet.metadata.num_row_groups)]
        row_bytes = max((g.total_byte_size / max(g.num_rows, 1) for g in sizes), default=1)
        rows = max(1, min(_BATCH_ROWS, int(_BATCH_BYTES / max(row_bytes, 1))))
        for batch in parquet.iter_batches(batch_size=rows):
            yield batch.replace_schema_metadata(schema.metadata)


def _arrow(file: TableFile) -> Iterator[pa.RecordBatch]:
    with pa.memory_map(file.path) as stream:
        if stream.read(6) == b"ARROW1":
            reader = pyarrow.ipc.open_file(stream)
            for index in range(reader.num_record_batches):
                yield reader.get_batch(index)
            return
        stream.seek(0)
        yield from pyarrow.ipc.open_stream(stream)


# --- JSON lines ---


def _line_blocks(file: TableFile) -> Iterator[tuple[int, bytes]]:
    """Yield blocks of whole lines, and the number of the first line of each, from 1."""
    line, rest = 1, b""
    with _open(file) as stream:
        while data := stream.read(_BLOCK_BYTES):
            head, newline, tail = data.rpartition(b"\n")
            if not newline:
                rest += data
                continue
            block, rest = rest + head + newline, tail
            yield from _without_mark(line, block)
            line += block.count(b"\n")
    yield from _without_mark(line, rest)


def _without_mark(line: int, block: bytes) -> Iterator[tuple[int, bytes]]:
    if line == 1:
        block = block.removeprefix(codecs.BOM_UTF8)
    if block.strip():
        yield line, block


def _parse_json(file: TableFile, line: int, block: bytes) -> pa.Table:
    """Return a block of lines; text stays text, whatever dates it looks like."""
    options = pyarrow.json.ReadOptions(use_threads=False, block_size=len(block) + 1)
    schema = None
    while True:
        try:
            table = pyarrow.json.read_json(
                pa.BufferReader(block),
                read_options=options,
                parse_options=pyarrow.json.ParseOptions(explicit_schema=schema),
            )
        except pa.ArrowInvalid as error:
            raise UserError(_json_message(file, line, block, str(error))) from None
        plain = pa.schema([f.with_type(_without_dates(f.type)) for f in table.schema])
        if plain == table.schema:
            _check_whole_numbers(file, line, block)
            return table
        schema = plain


def _check_whole_numbers(file: TableFile, line: int, block: bytes) -> None:
    """Refuse whole numbers beyond int64, which Arrow rounds to floats."""
    for match in _LONG_NUMBER.finditer(block):
        number = int(match[1])
        if not -(2**63) <= number < 2**63:
            at = line + block.count(b"\n", 0, match.start(1))
            raise UserError(
                f"source '{file.path}', line {at}: {number} is beyond int64: write it as text, "
                "or as a float"
            )


def _json_message(file: TableFile, line: int, block: bytes, text: str) -> str:
    """Return the message for a block that Arrow cannot parse, with the line."""
    text = text.removeprefix("JSON parse error: ")
    head, _, row = text.rpartition(" in row ")
    if not row.strip().isdecimal():
        return f"source '{file.path}', from line {line} on: not JSON lines ({text})"
    filled = [n for n, data in enumerate(block.split(b"\n")) if data.strip()]
    at = int(row)
    number = line + (filled[at] if at < len(filled) else at)
    if head.startswith("Column() changed"):
        return f"source '{file.path}', line {number}: each line must be an object"
    if "changed from" in head:
        name, _, change = head.removeprefix("Column(/").partition(") changed from ")
        was, _, now = change.partition(" to ")
        return (
            f"source '{file.path}', line {number}: '{name.replace('/', '.')}' is a {now}, in "
            f"the rows before a {was}: give a column values of one type"
        )
    return f"source '{file.path}', line {number}: not JSON ({head.rstrip('.')})"


def class_names(schema: pa.Schema) -> dict[str, tuple[str, ...]]:
    """Return the names of the classes by column, as Hugging Face keeps them in a schema."""
    try:
        document = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = document["info"]["features"].items()
        return {
            name: tuple(map(str, feature["names"]))
            for name, feature in features
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (ValueError, KeyError, TypeError, AttributeError):  # foreign or none
        return {}


def _without_dates(kind: pa.DataType) -> pa.DataType:
    """Return the type with text in place of the dates that Arrow takes some text for."""
    if pa.types.is_timestamp(kind):
        return pa.string()
    if pa.types.is_list(kind):
        return pa.list_(_without_dates(kind.value_type))
    if pa.types.is_struct(kind):
        fields = [kind.field(index) for index in range(kind.num_fields)]
        return pa.struct([f.with_type(_without_dates(f.type)) for f in fields])
    return kind
