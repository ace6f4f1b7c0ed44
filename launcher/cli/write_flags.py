"""The flags of planning and writing, which `plan`, `write` and `launch` share."""

import sys
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from absl import flags

from tenfold.data.errors import UserError
from tenfold.data.planning.layout import MB, LayoutPolicy
from tenfold.data.units import format_size, plural
from tenfold.launcher.cli.flags import FlagValues, define_counts, define_size, in_group

if TYPE_CHECKING:
    from rich.progress import Progress as ProgressBar

    from tenfold.data.planning.splits.split_rule import SplitRule
    from tenfold.data.planning.write_plan import WritePlan
    from tenfold.data.sources.base import SourceOptions
    from tenfold.data.writing.write_shards import Progress, WriteOptions, WriteResult

_POLICY: Final = LayoutPolicy()
# Between two plain progress lines, and between two drawings of the bar.
_LINE_INTERVAL_S: Final = 10.0
_BAR_INTERVAL_S: Final = 0.1


@in_group("Shard layout")
def define_plan_flags(fv: FlagValues) -> None:
    """Define --source, the flags of the splits and those of the layout."""
    _define_source_flags(fv)
    _define_split_flags(fv)
    flags.DEFINE_integer(
        "num_workers", _POLICY.num_workers, "number of workers that will train", flag_values=fv
    )
    define_counts(
        fv,
        "worker_counts",
        (),
        "further numbers of workers that must divide the shards evenly, as 1,2,4,8",
    )
    flags.DEFINE_integer(
        "shards_per_worker", _POLICY.shards_per_worker, "shards for each worker to read",
        flag_values=fv,
    )  # fmt: skip
    define_size(fv, "min_shard_size", 10 * MB, "smallest size of a shard, as 10MB or 16MiB")
    define_size(fv, "max_shard_size", 250 * MB, "largest size of a shard")


@in_group("Data")
def _define_source_flags(fv: FlagValues) -> None:
    flags.DEFINE_string(
        "source",
        "",
        "data set to read: a folder with a folder of images for each class, or with the folders "
        "images and masks; a table (.csv, "
        ".tsv, .jsonl, .parquet, .arrow, or a folder of parts); .npz or .npy arrays; TFRecord "
        "files or WebDataset tars, all here or on gs://; tfds:NAME; or module:function",
        flag_values=fv,
    )
    flags.DEFINE_string(
        "image_feature", "",
        "name of the image's column or feature, if it is an unusual one; further columns of "
        "images of a table follow commas",
        flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_string(
        "label_feature", "", "name of the class's column or feature, if it is an unusual one",
        flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_string(
        "labels", "",
        "table of labels and other features for a folder of images; a column has their names, "
        "with or without folder and suffix",
        flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_string(
        "classes", "",
        "the classes in order: a file with one a line, names as cat,dog, their number, or none; "
        "by default the labels that occur",
        flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_enum(
        "one_hot", "auto", ["auto", "always", "never"],
        "turn label vectors into class indices; auto: those that are clearly one-hot",
        flag_values=fv,
    )  # fmt: skip
    _define_table_flags(fv)
    flags.DEFINE_enum(
        "batched", "auto", ["auto", "yes", "no"], "whether module:function yields batches",
        flag_values=fv,
    )  # fmt: skip


def _define_table_flags(fv: FlagValues) -> None:
    flags.DEFINE_string(
        "columns",
        "",
        "columns of a table to take, and their types, as a:float,b:int64,c:text,d; * stands for "
        "all others",
        flag_values=fv,
    )
    flags.DEFINE_enum(
        "missing", "fail", ["fail", "drop", "zero", "nan", "keep"],
        "missing values of a table: fail, drop the row, store zero (or empty text) or NaN, or "
        "keep: the record lacks the feature",
        flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_string(
        "delimiter", "", "character between the cells of a CSV file, or tab; found by default",
        flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_string(
        "encoding", "", "encoding of a CSV file, as latin-1; UTF-8 by default", flag_values=fv
    )
    flags.DEFINE_bool(
        "no_header",
        None,
        "the first row of a CSV file is data; --columns may name the columns, in order",
        flag_values=fv,
    )


@in_group("Splits")
def _define_split_flags(fv: FlagValues) -> None:
    text = partial(flags.DEFINE_string, default="", flag_values=fv)
    text(
        name="split",
        help="splits and their fractions, as train:0.9,validation:0.1; the name alone keeps a "
        "split that the source has itself, as train:0.9,validation:0.1,test; or a source for each "
        "split, in place of --source: train=PATH,validation=PATH (default: the source's own "
        "splits, else all of it is train)",
    )
    text(name="split_feature", help="column or feature that names the split of each record")
    text(
        name="split_by",
        help="column or feature whose equal values stay in one split, as patient_id; with --split",
    )
    text(
        name="stratify",
        help="column or feature, as label, of which each split gets the same shares; with --split",
    )


def source_from_flags(fv: FlagValues) -> str | dict[str, str]:
    """Return the source that the flags name, or the source of each split; "" for none.

    Raises:
      UserError: --source and --split both name sources.
    """
    source: str = fv.source
    if not fv.split:
        return source
    from tenfold.data.planning.splits.split_fractions import parse_split_sources

    of_splits = parse_split_sources(fv.split)
    if of_splits and fv.source:
        raise UserError(
            f"--split={fv.split} names a source for each split, and --source another: give one"
        )
    return of_splits or source


def split_rule_from_flags(fv: FlagValues) -> "SplitRule":
    """Return the rule that the flags give for the splits.

    Raises:
      UserError: a flag is wrong, or two of them contradict each other.
    """
    from tenfold.data.planning.splits.split_fractions import parse_split_sources, parse_splits
    from tenfold.data.planning.splits.split_rule import SplitRule

    fractions = () if parse_split_sources(fv.split) else parse_splits(fv.split)
    return SplitRule(fractions, fv.split_feature, fv.split_by, fv.stratify)


def source_options_from_flags(fv: FlagValues) -> "SourceOptions":
    """Return the options of the source that the flags give."""
    from tenfold.data.sources.base import SourceOptions

    return SourceOptions(
        image=fv.image_feature,
        label=fv.label_feature,
        one_hot=fv.one_hot,
        batched=fv.batched,
        labels=fv.labels,
        classes=_classes(fv.classes),
        columns=fv.columns,
        missing=fv.missing,
        delimiter=fv.delimiter,
        encoding=fv.encoding,
        no_header=fv.no_header,
    )


def _classes(text: str) -> tuple[str, ...] | None:
    if not text:
        return None
    from tenfold.data.sources.class_labels import parse_classes
    from tenfold.data.storage.open_folder import read_file

    return parse_classes(text, read_file)


@in_group("Writing")
def define_write_flags(fv: FlagValues) -> None:
    """Define the flags that decide the contents of the shards, --source and --output included."""
    define_plan_flags(fv)
    flags.DEFINE_string("output", "", "folder for the shards: a path or gs://…", flag_values=fv)
    flags.DEFINE_multi_string(
        "transform",
        [],
        "transform of each record (repeatable, applied in order): resize:224x224, encode:jpeg, "
        "augment:copies=4, embed:model.keras[:layer], or module:function",
        flag_values=fv,
    )
    flags.DEFINE_integer("shuffle_seed", 0, "seed of the order of the records", flag_values=fv)
    flags.DEFINE_integer(
        "processes",
        0,
        "number of writing processes; 0: one more than cores, two per core for gs://",
        flag_values=fv,
    )
    flags.DEFINE_enum(
        "on_bad_record", "fail", ["fail", "skip"],
        "fail on the first broken record, or leave such records out and list them in "
        "quarantine.jsonl",
        flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_integer(
        "max_bad_records",
        100,
        "highest number of broken records to leave out with --on_bad_record=skip",
        flag_values=fv,
    )
    flags.DEFINE_enum(
        "check", "complete", ["complete", "decode"],
        "check that each image is complete, or also decode it once: an image that cannot be "
        "decoded is a broken record",
        flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_bool(
        "resume", True, "keep the finished shards of an interrupted write", flag_values=fv
    )
    flags.DEFINE_bool(
        "overwrite", False, "replace other shards in the output folder", flag_values=fv
    )


def policy_from_flags(fv: FlagValues) -> LayoutPolicy:
    """Return the layout policy of the flags.

    Raises:
      UserError: a number is out of range, or two of them contradict each other.
    """
    return LayoutPolicy(
        num_workers=fv.num_workers,
        worker_counts=fv.worker_counts,
        shards_per_worker=fv.shards_per_worker,
        min_shard_bytes=fv.min_shard_size,
        max_shard_bytes=fv.max_shard_size,
    )


@dataclass(frozen=True)
class WriteRequest:
    """The arguments of one `write_shards`, complete before it starts."""

    source: Any
    output: str
    source_options: "SourceOptions"
    transforms: tuple[str, ...]
    options: "WriteOptions"


def write_request(fv: FlagValues, **options: Any) -> WriteRequest:
    """Return the write that the flags describe.

    Args:
      fv: the parsed flags.
      **options: further fields of WriteOptions.

    Raises:
      UserError: a flag is missing or wrong.
    """
    from tenfold.data.writing.write_shards import WriteOptions

    source = source_from_flags(fv)
    for name, value in (("source", source), ("output", fv.output)):
        if not value:
            raise UserError(f"--{name} is missing: --help lists the flags")
    rule = split_rule_from_flags(fv)
    if fv.max_bad_records < 0:
        raise UserError(f"--max_bad_records={fv.max_bad_records}: it must be at least 0")
    return WriteRequest(
        source=source,
        output=fv.output,
        source_options=source_options_from_flags(fv),
        transforms=tuple(fv.transform),
        options=WriteOptions(
            policy=policy_from_flags(fv),
            splits={split.name: split.fraction for split in rule.fractions},
            split_feature=rule.feature,
            split_by=rule.by,
            stratify=rule.stratify,
            shuffle_seed=fv.shuffle_seed,
            processes=fv.processes,
            check=fv.check,
            resume=fv.resume,
            overwrite=fv.overwrite,
            max_bad_records=fv.max_bad_records if fv.on_bad_record == "skip" else None,
            **options,
        ),
    )


def run_write(request: WriteRequest) -> "WriteResult":
    """Write, with progress on stderr.

    Raises:
      UserError: as `write_shards`.
      JobError: as `write_shards`.
    """
    from tenfold.data.writing.write_shards import write_shards

    with WriteProgress() as progress:
        return write_shards(
            request.source,
            request.output,
            source_options=request.source_options,
            transforms=request.transforms,
            options=request.options,
            on_progress=progress.show,
            on_plan=progress.begin,
        )


def write_from_flags(fv: FlagValues, **options: Any) -> "WriteResult":
    """Write the data set that the flags describe, with progress on stderr.

    Args:
      fv: the parsed flags.
      **options: further fields of WriteOptions.

    Raises:
      UserError: a flag is missing or wrong, or as `write_shards`.
      JobError: as `write_shards`.
    """
    return run_write(write_request(fv, **options))


class WriteProgress:
    """The progress of a write on stderr: a bar on a terminal, else a line every ten seconds."""

    def __init__(self) -> None:
        self._bar = _make_bar() if sys.stderr.isatty() else None
        self._interval_s = _LINE_INTERVAL_S if self._bar is None else _BAR_INTERVAL_S
        self._began = self._last = time.monotonic()

    def __enter__(self) -> "WriteProgress":
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def begin(self, plan: "WritePlan") -> None:
        """Print how the splits are made, and the layout of each."""
        for note in plan.notes:
            self._print(note)
        for split in plan.splits:
            layout = split.layout
            chosen = "about " if split.records_per_copy != 1 else ""
            self._print(
                f"{split.name}: {chosen}{plural(split.expected_records, 'record')} in "
                f"{plural(layout.num_shards, 'shard')} of about "
                f"{format_size(layout.shard_bytes_mean)}"
            )
            for note in (*layout.reasons, *(f"warning: {text}" for text in layout.warnings)):
                self._print(f"  {note}")

    def show(self, progress: "Progress") -> None:
        """Show the progress, unless there is nothing to write or the last report is recent."""
        now = time.monotonic()
        if now - self._last < self._interval_s or not progress.total_records:
            return
        self._last = now
        text = self._text(progress, now - self._began)
        if self._bar is None:
            self._print(text)
            return
        if not self._bar.tasks:
            self._bar.add_task("write", total=progress.total_records, text=text)
            self._bar.start()
        self._bar.update(self._bar.tasks[0].id, completed=progress.records, text=text)
        self._bar.refresh()

    def _text(self, progress: "Progress", seconds: float) -> str:
        rate = progress.records / max(seconds, 1e-9)
        return (
            f"{progress.records:,} of {progress.total_records:,} records "
            f"({100 * progress.records / progress.total_records:.0f} %), "
            f"{format_size(progress.bytes)}, {progress.shards} of {progress.total_shards} shards, "
            f"{rate:,.0f} records/s"
        )

    def _print(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


def _make_bar() -> "ProgressBar":
    """Return a bar that is drawn on `refresh` only.

    A thread that redraws the bar would keep the pool from forking its processes, which is safe
    only while there is one thread. Redirected streams would be inherited by these processes.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    return Progress(
        BarColumn(bar_width=16),
        TextColumn("{task.fields[text]}", markup=False),
        console=Console(stderr=True),
        auto_refresh=False,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
