"""The scan of a table: from its files to rows in the scratch folder, in one or two passes.

The first pass stores rows by the types that the rows so far have. If a later row widens a type,
the pass only looks at the remaining rows, and a second pass stores all by the final types.
"""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from tenfold.data.errors import UserError, did_you_mean
from tenfold.data.format.columns import Column, number_column
from tenfold.data.format.manifest import IMAGE, LABEL
from tenfold.data.planning.layout import SourceStats
from tenfold.data.sources.base import SourceOptions
from tenfold.data.sources.class_labels import LabelMap
from tenfold.data.sources.tables.arrow_batches import TableReader, class_names
from tenfold.data.sources.tables.choose_columns import (
    Cells,
    ChosenColumns,
    choose_columns,
    items_of,
)
from tenfold.data.sources.tables.columns.arrow_columns import Values, flat_values
from tenfold.data.sources.tables.columns.column_spec import ColumnSpec
from tenfold.data.sources.tables.columns.column_store import (
    ROW,
    ColumnStore,
    ColumnStoreWriter,
)
from tenfold.data.sources.tables.columns.given_columns import parse_columns
from tenfold.data.sources.tables.columns.stored_labels import map_stored_labels
from tenfold.data.sources.tables.columns.stored_sizes import record_sizes, rows_digest
from tenfold.data.sources.tables.columns.table_column import (
    MISSING_POLICIES,
    TableColumn,
)
from tenfold.data.sources.tables.columns.table_images import ImageColumn, Images, NamedImages
from tenfold.data.sources.tables.columns.text_cells import TEXT
from tenfold.data.sources.tables.csv_dialect import CsvOptions
from tenfold.data.sources.tables.scan_notes import missing_error, notes_of
from tenfold.data.sources.tables.table_files import TableFile
from tenfold.data.sources.tables.table_source import TablePart, TableSource

# Reasons for single rows are kept in memory, and go to every writing process.
MAX_UNUSABLE: Final = 10_000
_INDEX_NAME = re.compile(r"Unnamed: \d+|__index_level_\d+__")


def scan_table(
    source: str,
    files: Sequence[TableFile],
    scratch: Path,
    options: SourceOptions,
    images: Images,
) -> TableSource:
    """Scan a table.

    Args:
      source: The source as the user wrote it, for errors.
      files: Its files, in order.
      scratch: Local folder for the rows.
      options: The columns, their types, missing values, and how CSV files are written.
      images: The images that the table may name.

    Raises:
      UserError: the table cannot be read, its rows do not match, values are missing, or an image
        is.
    """
    if options.missing not in MISSING_POLICIES:
        hint = did_you_mean(options.missing, MISSING_POLICIES)
        raise UserError(f"--missing={options.missing} is unknown: {hint}")
    scan = TableScan(source, files, scratch, options, images)
    scan.run()
    return scan.source()


class TableScan:
    """A scan in progress.

    Attributes:
      files: The table's files.
      reader: Reads them.
      columns: Each column of values by its name in the table.
      images: Each column of paths of images by its name in the table.
      rows: Rows read so far in this pass, including those that are dropped.
      left_out: Columns that --columns does not list.
      counting: Columns without a name, and whether they only count the rows.
    """

    def __init__(
        self,
        source: str,
        files: Sequence[TableFile],
        scratch: Path,
        options: SourceOptions,
        images: Images,
    ) -> None:
        self.name = source
        self.files = tuple(files)
        self.options = options
        self.given = parse_columns(options.columns)
        csv = CsvOptions(options.delimiter, options.encoding, options.no_header)
        self.reader = TableReader(csv, tuple(self.given.types) if options.no_header else ())
        self.columns: dict[str, TableColumn] = {}
        self.images: dict[str, ImageColumn] = {}
        self.left_out: dict[str, None] = {}
        self.counting: dict[str, bool] = {}
        self.starts: list[int] = []
        self._scratch = scratch
        self._all_images = images
        self.chosen = ChosenColumns()

    def run(self) -> None:
        """Read the table, twice if its types were not known at first.

        Raises:
          UserError: as `scan_table`.
        """
        is_stored = self._pass()
        self._check()
        if is_stored:
            return
        for column in self.columns.values():
            column.restart()
        if not self._pass():
            raise UserError(f"source '{self.name}' changed while it was scanned: run it again")

    def _pass(self) -> bool:
        """Read all rows and store them; return whether one layout fits them all."""
        self.rows = 0
        self.starts = []
        self._unusable: dict[int, str] = {}
        self._parts: list[TablePart] = []
        self._writer: ColumnStoreWriter | None = None
        stored = True
        try:
            for file in self.files:
                self.starts.append(self.rows)
                kept = self._writer.rows if self._writer else 0
                self._parts.append(TablePart(file.path, kept, file.split))
                first = self.rows
                for batch in self.reader.batches(file):
                    if batch.num_rows:
                        stored = self._add(file, batch, self.rows - first, stored)
        finally:
            if self._writer is not None:
                self._writer.__exit__(None, None, None)
        return stored

    def _add(self, file: TableFile, batch: pa.RecordBatch, row: int, stored: bool) -> bool:
        """Add a batch; return whether it is stored as all batches before."""
        count = batch.num_rows
        cells = self._cells(file, batch)
        if not self.rows:
            self._choose(cells)
            self._class_names = class_names(batch.schema)
        paths = {name: cells.pop(name, None) for name in self.images}
        block, unusable, keep = self._take(cells, count)
        self._count_up(block)
        block[ROW] = number_column(np.arange(row, row + count))
        for name, column in self.images.items():
            named = paths[name]
            items = [None] * count if named is None else items_of(named).to_pylist()
            block |= column.take(items)
            unusable = column.unusable | unusable
        specs = self.specs
        if self._writer is None:
            self._writer = ColumnStoreWriter(self._scratch, specs)
            self._writer.__enter__()
            self._specs = specs
        stored = stored and specs == self._specs
        if stored:
            self._note_unusable(unusable, keep)
            self._writer.append(block, count, keep)
        self.rows += count
        return stored

    @property
    def specs(self) -> tuple[ColumnSpec, ...]:
        """How the rows are stored, by the rows so far."""
        features = [
            column.spec
            for name, column in self.columns.items()
            if not column.is_empty and not self.is_left_out(name)
        ]
        internal = [ColumnSpec(ROW, "int64")]
        internal += [spec for column in self.images.values() for spec in column.specs]
        return (*sorted(features, key=lambda spec: spec.name), *internal)

    def is_left_out(self, name: str) -> bool:
        """Whether a column without a name holds nothing but the number of the row."""
        return self.counting.get(name, False) or (
            name in self.counting and self.columns[name].is_empty
        )

    # --- columns ---

    def _cells(self, file: TableFile, batch: pa.RecordBatch) -> dict[str, Cells]:
        """Return the columns of a batch, flattened; those that --columns leaves out are not."""
        found: dict[str, Cells] = {}
        partitions = dict(file.partitions)
        for number, (name, array) in enumerate(
            zip(batch.schema.names, batch.columns, strict=True), 1
        ):
            name = name.strip()
            if not name or _INDEX_NAME.fullmatch(name):
                name = name or f"column_{number}"
                self.counting.setdefault(name, True)
            if not name.isprintable():
                raise UserError(
                    f"source '{file.path}': column {name!r} cannot be shown: rename it"
                )
            if not self.given.takes(name):
                self.left_out[name] = None
                continue
            is_text = file.is_text or (name in partitions and pa.types.is_string(array.type))
            flat = [(name, array)] if is_text else flat_values(name, array)
            for flat_name, values in flat:
                if flat_name in found:
                    raise UserError(
                        f"source '{file.path}': column '{flat_name}' is there twice: rename one"
                    )
                if self.given.takes(flat_name):
                    found[flat_name] = values
        return found

    def _choose(self, cells: dict[str, Cells]) -> None:
        """Choose the columns of the label, and of images or their paths."""
        names = dict.fromkeys([*cells, *self.columns])
        self.given.check([*names, *self.left_out])
        try:
            texts = [name for name, kind in self.given.types.items() if kind == TEXT]
            self.chosen = choose_columns(cells, names, self.options, self._all_images, texts)
        except UserError as error:
            raise UserError(f"source '{self.name}': {error}") from None
        self.images = {
            name: ImageColumn(name, feature, self._all_images)
            for name, feature in self.chosen.paths.items()
        }

    def _take(
        self, cells: dict[str, Cells], count: int
    ) -> tuple[dict[str, Column], dict[int, str], np.ndarray | None]:
        """Return a batch as it is stored, why rows are unusable, and which rows are kept."""
        for name in cells:
            if name not in self.columns:
                self.columns[name] = self._new_column(name)
        block: dict[str, Column] = {}
        unusable: dict[int, str] = {}
        keep: np.ndarray | None = None
        for name, column in self.columns.items():
            absent = Values(pa.nulls(count), missing=np.ones(count, bool))
            try:
                block[column.feature] = column.take(cells.get(name, absent))
            except UserError as error:
                raise UserError(f"source '{self.name}': {error}") from None
            for row, reason in column.unusable.items():
                unusable.setdefault(row, reason)
            if column.dropped is not None and not column.is_empty and not self.is_left_out(name):
                keep = ~column.dropped if keep is None else keep & ~column.dropped
        return block, unusable, keep

    def _new_column(self, name: str) -> TableColumn:
        is_label = name == self.chosen.label
        feature = LABEL if is_label else IMAGE if name == self.chosen.image else name
        column = TableColumn(
            name,
            given=self.given.types.get(name, ""),
            policy=self.options.missing,
            feature=feature,
            is_label=is_label,
            one_hot=self.options.one_hot if is_label else "never",
        )
        if self.rows:  # the column is not in the rows before
            column.rows = column.missing = self.rows
            column.ever_missing = True
            column.missing_rows = list(range(min(self.rows, 3)))
        return column

    def _count_up(self, block: dict[str, Column]) -> None:
        """Note which columns without a name count the rows, as pandas' index does."""
        for name, counts in self.counting.items():
            column = block.get(name)
            if column is None or not counts:
                continue
            is_number = column.kind == "int64" and column.shape == ()
            rising = is_number and bool((np.diff(column.values) == 1).all())
            begins = bool(self.rows) or (is_number and int(column.values[0]) in (0, 1))
            self.counting[name] = rising and begins

    # --- rows ---

    def _note_unusable(self, unusable: dict[int, str], keep: np.ndarray | None) -> None:
        assert self._writer is not None
        if not unusable:
            return
        places = None if keep is None else np.cumsum(keep) - 1
        for row, reason in unusable.items():
            if keep is None or places is None:
                self._unusable[self._writer.rows + row] = reason
            elif keep[row]:
                self._unusable[self._writer.rows + int(places[row])] = reason
        if len(self._unusable) > MAX_UNUSABLE:
            reason = next(reversed(self._unusable.values()))
            raise UserError(
                f"source '{self.name}': more than {MAX_UNUSABLE:,} rows cannot be used, as one "
                f"where {reason}: mend the table, or leave out rows without a label by "
                "--missing=drop"
            )

    def where(self, rows: Sequence[int]) -> str:
        """Return the lines, or rows, of the table's rows in the file of the first of them."""
        part = int(np.searchsorted(self.starts, rows[0], side="right")) - 1
        end = self.starts[part + 1] if part + 1 < len(self.starts) else self.rows
        text = self.reader.where(
            self.files[part], [row - self.starts[part] for row in rows if row < end]
        )
        return text if len(self.files) == 1 else f"{text} of {self.files[part].path}"

    def _check(self) -> None:
        """Check the table as a whole, after the first pass."""
        if not self.rows:
            raise UserError(f"source '{self.name}' has no rows")
        if all(column.is_empty for column in self.columns.values()) and not self.images:
            raise UserError(f"source '{self.name}' has no values: all are missing")
        for images in self.images.values():
            if images.missing == self.rows:
                raise UserError(
                    f"source '{self.files[0].path}', row 0: {images.first_problem}; "
                    f"column '{images.name}' names no image at all: check the paths, or keep "
                    f"them as text by --columns={images.name}:text,*"
                )
        if problem := missing_error(self):
            raise UserError(f"source '{self.name}': {problem}")

    # --- the result ---

    def source(self) -> TableSource:
        """Return the scanned source; call it after `run`."""
        store = ColumnStore(self._scratch, self._specs)
        assert self._writer is not None
        if not self._writer.rows:
            raise UserError(f"source '{self.name}': --missing=drop leaves out all rows")
        labels = LabelMap()
        if self.chosen.label:
            labels = map_stored_labels(
                store,
                self.columns[self.chosen.label],
                unusable=self._unusable,
                classes=self.options.classes,
                known=self._class_names.get(self.chosen.label),
            )
        total, largest = record_sizes(store)
        digest = f"{rows_digest(store)}{self._writer.digest.hexdigest()}"
        stats = SourceStats(
            num_examples=self._writer.rows,
            total_bytes=total,
            max_record_bytes=largest,
            label_names=labels.names,
            fingerprint=f"table-{_short(digest)}",
            num_classes=labels.num_classes if self.chosen.label else None,
        )
        notes = (*notes_of(self), *([labels.note] if labels.note else []))
        used = [c for n, c in self.columns.items() if not c.is_empty and not self.is_left_out(n)]
        return TableSource(
            store, stats, self._parts, notes=notes, unusable=self._unusable,
            images=self._named_images(),
            by_row=any(c.has_images or _is_deep(c.spec) for c in used),
        )  # fmt: skip

    def _named_images(self) -> NamedImages | None:
        """Return the images that the rows name, ``image`` first; None if there are none."""
        names = sorted(self.images, key=lambda name: self.chosen.paths[name] != IMAGE)
        origins = {self.chosen.paths[name]: f"column '{name}'" for name in names}
        return NamedImages(self._all_images.files, origins) if origins else None


def _short(digest: str) -> str:
    return hashlib.blake2b(digest.encode(), digest_size=8).hexdigest()


def _is_deep(spec: ColumnSpec) -> bool:
    """Whether lists of lists of different length are stored as one list."""
    return len(spec.shape) > 1 and None in spec.shape
