"""The protocol of a source of examples, and the values and exceptions that it uses."""

from dataclasses import dataclass
from typing import Protocol

from tenfold.data.errors import JobError
from tenfold.data.format.example import Features
from tenfold.data.format.schema import Schema
from tenfold.data.planning.layout import SourceStats


class UnusableRecord(ValueError):
    """One record cannot be used; the message gives the reason without naming the record."""


class SourceChanged(JobError):
    """The source has changed since it was scanned."""


@dataclass(frozen=True)
class SourceOptions:
    """Properties that a source cannot reveal by itself.

    Attributes:
      image: Name of the feature (column) that holds the image; "" tries the usual names. A table
        may have several columns of images, with commas between their names; the first is the
        feature ``image``.
      label: Name of the feature (column) that holds the class; "" tries the usual names.
      one_hot: Whether labels are one-hot vectors: ``auto`` decides by their values, ``always``
        or ``never``.
      batched: Whether the elements of a stream are batches: ``auto`` decides by their shapes,
        ``yes`` or ``no``.
      classes: The names of the classes in order; () if there are no classes, None to take the
        labels that occur (`tenfold.data.sources.class_labels`).
      labels: A table with labels and other features of the images in a folder: a path or a URL.
      any_image: Take images in every format that Pillow opens: a transform encodes them anew.
      columns: The columns of a table to take, and their types, as ``a:float,b:int64,c:text,d``;
        ``*`` stands for all others, and "" takes all and finds their types.
      missing: The way to store missing values of a table: ``fail``, ``drop`` the row, ``zero``
        (or empty text), ``nan``, or ``keep``: the record lacks the feature.
      delimiter: The character between the cells of a CSV file, or ``tab``; "" finds it.
      encoding: The encoding of a CSV file; "" is UTF-8, or as the file's first bytes tell.
      sizes_only: The source is opened for its number of examples and their sizes: its examples
        cannot be read.
      no_header: Whether the first row of a CSV file is data, and `columns`, if given, names all
        columns in order; None refuses a first row with numbers.
    """

    image: str = ""
    label: str = ""
    one_hot: str = "auto"
    batched: str = "auto"
    classes: tuple[str, ...] | None = None
    labels: str = ""
    any_image: bool = False
    columns: str = ""
    missing: str = "fail"
    delimiter: str = ""
    encoding: str = ""
    no_header: bool | None = None
    sizes_only: bool = False

    @property
    def images(self) -> tuple[str, ...]:
        """The names in `image`, between commas."""
        return tuple(name.strip() for name in self.image.split(",") if name.strip())

    @property
    def for_tables(self) -> tuple[str, ...]:
        """The flags of those options that are set and that only tables have."""
        flags = {
            "--columns": self.columns,
            "--missing": self.missing != "fail",
            "--delimiter": self.delimiter,
            "--encoding": self.encoding,
            "--no_header": self.no_header is not None,
        }
        return tuple(flag for flag, value in flags.items() if value)


@dataclass(frozen=True)
class Encoded:
    """One record, ready to be framed.

    Attributes:
      payload: The serialized tf.train.Example.
      schema: Its features, sorted by name.
      label: The value of the int64 scalar ``label``; None if the record has none.
      changes: How transforms had to convert the image, one remark each; they are counted.
    """

    payload: bytes
    schema: Schema
    label: int | None = None
    changes: tuple[str, ...] = ()


class Source(Protocol):
    """A scanned source of examples: countable, readable by index, and picklable.

    `open_source` scans a source once, in the process that plans the write. The source is then
    pickled and sent to each writing process, where any example may be read, in any order and
    more than once. So a source:

    - must pickle small and without open files: keep paths, and open files on first use in each
      process. Large results of the scan belong in files of the scratch folder
      (`tenfold.data.format.row_file`), which all processes of the machine map into memory;
    - must be deterministic: the same index gives the same bytes in every process and every run,
      or a resumed write would mix records;
    - must be safe to read from several threads at once if it sets the optional attribute
      `concurrent_reads`, the number of threads in which each writing process then reads
      (1 by default);
    - may offer ``columns(indices) -> Columns | None``: the examples at `indices`, int64 [n], as
      columns, which are written many times as fast. They must give the bytes that `encoded`
      gives. None leaves these examples to `encoded`; a broken example is named in
      `Columns.unusable`;
    - raises `UnusableRecord` for an example that is broken: ``--on_bad_record`` decides between
      failing and skipping. It raises `SourceChanged` if the data has changed since the scan.
      This and any other exception ends the write.

    A source that has splits of its own sets the optional attribute `splits`, a tuple of `OwnSplit`
    (`tenfold.data.planning.splits.own_splits`): its examples are then ordered by split, and the
    write keeps the splits. A source that knows the values of features without reading its records
    may offer the method ``feature_values(name) -> FeatureValues | None`` (same module;
    `code_values` makes one), None for a feature that it does not cover.

    A source whose records may lack features sets the optional attribute `optional_features`, the
    collection of their names: the manifest marks them as optional.

    Attributes:
      stats: Number and sizes of the records as shards store them, before any transform. Its
        fingerprint must change when the content or the order of the examples changes.
      notes: Remarks for the user, one line each, for instance about ignored files.
    """

    stats: SourceStats
    notes: tuple[str, ...]

    def encoded(self, index: int) -> Encoded:
        """Return example `index`, packed, with all bytes unchanged.

        Raises:
          UnusableRecord: the example is broken.
          SourceChanged: the data has changed since the scan.
        """

    def features(self, index: int) -> Features:
        """Return example `index` as values by feature name, for transforms.

        Encoded images stay bytes, and arrays stay arrays. Raises as `encoded`.
        """

    def name(self, index: int) -> str:
        """Return the name of example `index` for messages, such as a path or a row number."""
