"""The flags of planning and writing, as `plan`, `write` and `launch` share them."""

import sys
import time
from typing import TYPE_CHECKING, Any, Final

from absl import flags

from tenfold.data.errors import UserError
from tenfold.data.planning.layout import MB, LayoutPolicy
from tenfold.data.units import format_size, plural
from tenfold.launcher.cli.flags import FlagValues, define_counts, define_size

if TYPE_CHECKING:
    from tenfold.data.planning.write_plan import WritePlan
    from tenfold.data.sources.base import SourceOptions
    from tenfold.data.writing.write_shards import Progress, WriteResult

_POLICY: Final = LayoutPolicy()


def define_plan_flags(fv: FlagValues) -> None:
    """Defines the flags that choose a layout, and --source."""
    _define_source_flags(fv)
    flags.DEFINE_integer(
        "num_workers", _POLICY.num_workers, "workers that will train", flag_values=fv
    )
    define_counts(
        fv, "worker_counts", (), "further numbers of workers that must divide evenly, as 1,2,4,8"
    )
    flags.DEFINE_integer(
        "shards_per_worker", _POLICY.shards_per_worker, "shards each worker should read",
        flag_values=fv,
    )  # fmt: skip
    define_size(fv, "min_shard_size", 10 * MB, "shards should not be smaller, as 10MB or 16MiB")
    define_size(fv, "max_shard_size", 250 * MB, "shards should not be larger")


def _define_source_flags(fv: FlagValues) -> None:
    flags.DEFINE_string(
        "source",
        "",
        "data set to read: a folder of class folders of images; a .csv, .tsv, .jsonl or "
        ".parquet table; .npz or .npy arrays; TFRecord files, all here or on gs://; tfds:NAME; or "
        "module:function",
        flag_values=fv,
    )
    flags.DEFINE_string(
        "image_feature", "", "column or feature that is the image, if not named as such",
        flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_string(
        "label_feature", "", "column or feature that is the class, if not named as such",
        flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_enum(
        "one_hot", "auto", ["auto", "always", "never"],
        "turn label vectors into class indices; auto: where they are clearly one-hot",
        flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_enum(
        "batched", "auto", ["auto", "yes", "no"], "whether a stream gives batches",
        flag_values=fv,
    )  # fmt: skip


def source_options_from_flags(fv: FlagValues) -> "SourceOptions":
    """Returns what the flags say of the source."""
    from tenfold.data.sources.base import SourceOptions

    return SourceOptions(
        image=fv.image_feature, label=fv.label_feature, one_hot=fv.one_hot, batched=fv.batched
    )


def define_write_flags(fv: FlagValues) -> None:
    """Defines all flags that decide what is written, --source and --output included."""
    define_plan_flags(fv)
    flags.DEFINE_string("output", "", "folder for the shards: a path or gs://…", flag_values=fv)
    flags.DEFINE_string(
        "split", "train", "splits and their shares, as train:0.9,validation:0.1", flag_values=fv
    )
    flags.DEFINE_multi_string(
        "transform",
        [],
        "what to do with each record, in order (repeatable): resize:224x224, encode:jpeg, "
        "augment:copies=4, embed:model.keras[:layer], or module:function",
        flag_values=fv,
    )
    flags.DEFINE_integer("shuffle_seed", 0, "seed of the order of the records", flag_values=fv)
    flags.DEFINE_integer(
        "processes", 0, "processes that write; 0: one per processor, two for gs://", flag_values=fv
    )
    flags.DEFINE_enum(
        "on_bad_record", "fail", ["fail", "skip"],
        "fail on the first broken record, or leave such out and list them in quarantine.jsonl",
        flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_integer(
        "max_bad_records", 100, "fail beyond this many with --on_bad_record=skip", flag_values=fv
    )
    flags.DEFINE_bool(
        "resume", True, "keep the finished shards of a write that was stopped", flag_values=fv
    )
    flags.DEFINE_bool(
        "overwrite", False, "replace other shards in the output folder", flag_values=fv
    )


def policy_from_flags(fv: FlagValues) -> LayoutPolicy:
    """Returns the layout policy that the flags ask for.

    Raises:
      UserError: the numbers make no sense.
    """
    return LayoutPolicy(
        num_workers=fv.num_workers,
        worker_counts=fv.worker_counts,
        shards_per_worker=fv.shards_per_worker,
        min_shard_bytes=fv.min_shard_size,
        max_shard_bytes=fv.max_shard_size,
    )


def write_from_flags(fv: FlagValues, **options: Any) -> "WriteResult":
    """Writes what the flags ask for, with progress on stderr; `options` are more WriteOptions.

    Raises:
      UserError: a flag is missing or makes no sense, or as `write_shards`.
      JobError: as `write_shards`.
    """
    from tenfold.data.planning.plan_layout import parse_splits
    from tenfold.data.writing.write_shards import WriteOptions, write_shards

    for name in ("source", "output"):
        if not fv[name].value:
            raise UserError(f"--{name} is missing: --help lists the flags")
    if fv.max_bad_records < 0:
        raise UserError(f"--max_bad_records={fv.max_bad_records}: it must be at least 0")
    progress = WriteProgress()
    with progress:
        return write_shards(
            fv.source,
            fv.output,
            source_options=source_options_from_flags(fv),
            policy=policy_from_flags(fv),
            splits=parse_splits(fv.split),
            transforms=fv.transform,
            shuffle_seed=fv.shuffle_seed,
            options=WriteOptions(
                processes=fv.processes,
                resume=fv.resume,
                overwrite=fv.overwrite,
                max_bad_records=fv.max_bad_records if fv.on_bad_record == "skip" else None,
                **options,
            ),
            on_progress=progress.show,
            on_plan=progress.begin,
        )


class WriteProgress:
    """Says on stderr how a write goes: one line that renews itself, or plain ones in a log."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._interval_s = 0.1 if self._live else 10.0
        self._started = self._last = time.monotonic()

    def __enter__(self) -> "WriteProgress":
        return self

    def __exit__(self, *error: object) -> None:
        if self._live:
            self._print("\r\x1b[K", end="")

    def begin(self, plan: "WritePlan") -> None:
        """Says what will be written."""
        for split in plan.splits:
            layout = split.layout
            self._print(
                f"{split.name}: {plural(split.examples * split.copies, 'record')} in "
                f"{plural(layout.num_shards, 'shard')} of about "
                f"{format_size(layout.shard_bytes_mean)}"
            )
            for note in (*layout.reasons, *(f"warning: {text}" for text in layout.warnings)):
                self._print(f"  {note}")

    def show(self, progress: "Progress") -> None:
        """Says how far it is, but not too often."""
        now = time.monotonic()
        if now - self._last < self._interval_s or not progress.total_records:
            return
        self._last = now
        rate = progress.records / max(now - self._started, 1e-9)
        text = (
            f"{progress.records:,} of {progress.total_records:,} records "
            f"({100 * progress.records / progress.total_records:.0f} %), "
            f"{format_size(progress.bytes)}, {progress.shards} of {progress.total_shards} shards, "
            f"{rate:,.0f} records/s"
        )
        self._print(f"\r\x1b[K{text}" if self._live else text, end="" if self._live else "\n")

    def _print(self, text: str, end: str = "\n") -> None:
        print(text, end=end, file=sys.stderr, flush=True)
