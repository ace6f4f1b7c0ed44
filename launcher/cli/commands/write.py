"""`tenfold write`: from a source to shards and a manifest."""

import json
import time
from typing import TYPE_CHECKING, Any, Final

from absl import flags

from tenfold.data.units import format_duration, format_size, plural
from tenfold.launcher.cli.flags import Arguments, FlagValues, in_group
from tenfold.launcher.cli.write_flags import define_write_flags, write_from_flags

if TYPE_CHECKING:
    from tenfold.data.format.manifest import Manifest
    from tenfold.data.writing.write_shards import WriteResult

USAGE: Final = "--source=PATH --output=PATH [--flag=value …] [-- --runner=… (with --engine=beam)]"

_TRAIN: Final = "train"
# The share of records that an epoch may leave over without a remark.
_NOTABLE_LEFTOVER: Final = 0.01


def define_flags(fv: FlagValues) -> None:
    """Define the flags of `write`."""
    define_write_flags(fv)
    _define_writer_flags(fv)
    flags.DEFINE_bool(
        "dry_run", False, "print the shards that would be written, change nothing", flag_values=fv
    )
    flags.DEFINE_enum(
        "format", "text", ["text", "json"], "form of the printed result", flag_values=fv
    )


@in_group("Writing")
def _define_writer_flags(fv: FlagValues) -> None:
    flags.DEFINE_enum(
        "engine", "local", ["local", "beam"],
        "write with processes of this machine, or in an Apache Beam pipeline, whose options "
        "follow a --",
        flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_integer(
        "writer_index", 0, "number of this writer, from 0, with --num_writers", flag_values=fv
    )
    flags.DEFINE_integer(
        "num_writers", 1,
        "number of machines that share the write; the last to finish publishes the manifest",
        flag_values=fv,
    )  # fmt: skip
    # The former names of the two.
    flags.DEFINE_alias("task_index", "writer_index", flag_values=fv)
    flags.DEFINE_alias("num_tasks", "num_writers", flag_values=fv)


def run(fv: FlagValues, args: Arguments) -> int:
    """Write the data set and print the result; return the exit status."""
    if fv.engine != "beam" or args.positional:
        args.expect_none()
    started = time.monotonic()
    result = write_from_flags(
        fv,
        writer_index=fv.writer_index,
        num_writers=fv.num_writers,
        engine=fv.engine,
        engine_arguments=args.program,
        dry_run=fv.dry_run,
    )
    seconds = time.monotonic() - started
    if fv.format == "json":
        print(json.dumps(to_json(result, fv.output, seconds), indent=1))
    else:
        print(summary(result, fv.output, seconds))
    return 0


def to_json(result: "WriteResult", output: str, seconds: float) -> dict[str, Any]:
    """Return the result of a write for --format=json.

    `complete` is true once the data set is published; `records` counts the whole data set, as
    planned until then.
    """
    manifest = result.manifest
    planned = result.plan.num_records
    return {
        "output": output,
        "complete": manifest is not None,
        "records": sum(split.num_records for split in manifest.splits) if manifest else planned,
        "num_shards": len(result.plan.tasks),
        "written": result.written,
        "kept": result.kept,
        "quarantined": manifest.quarantined if manifest else 0,
        "left_out": manifest.left_out if manifest else 0,
        "shared_records": [vars(s) for s in manifest.shared_records] if manifest else [],
        "notes": list(result.notes),
        "seconds": round(seconds, 3),
    }


def summary(result: "WriteResult", output: str, seconds: float) -> str:
    """Return the result of a write in lines of text."""
    shown = set(result.plan.notes)  # printed with the plan
    lines = [note for note in result.notes if note not in shown]
    if result.dry_run:
        kept = f", {result.kept} would be kept" if result.kept else ""
        shards = plural(result.written, "shard")
        lines.append(f"{output}: {shards} would be written{kept}; nothing was changed")
    elif result.manifest is None:
        lines.append(
            f"{output}: this writer has finished its "
            f"{plural(result.written + result.kept, 'shard')}; other writers have not finished yet"
        )
    elif result.written == 0:
        lines.append(f"{output} holds these shards already: nothing to do")
    else:
        lines += _written(result, result.manifest, output, seconds)
    return "\n".join(lines)


def _written(
    result: "WriteResult", manifest: "Manifest", output: str, seconds: float
) -> list[str]:
    from tenfold.data.format.schema import describe_feature

    records = sum(split.num_records for split in manifest.splits)
    num_bytes = sum(split.num_bytes for split in manifest.splits)
    shards = sum(len(split.shards) for split in manifest.splits)
    kept = f" ({result.kept} kept from an earlier write)" if result.kept else ""
    lines = [
        f"{output}: {plural(records, 'record')}, {format_size(num_bytes)}, "
        f"{plural(shards, 'shard')}{kept} in {format_duration(seconds)}"
    ]
    shown = (f"{feature.name} ({describe_feature(feature)})" for feature in manifest.features)
    lines.append(f"features: {', '.join(shown)}")
    return [*lines, *remarks(manifest, output)]


def remarks(manifest: "Manifest", output: str) -> list[str]:
    """Return a line on each thing that the user should know of written shards."""
    lines = []
    if manifest.left_out:
        lines.append(f"{plural(manifest.left_out, 'record')} left out by your transforms")
        lines += _uneven_lanes(manifest)
    lines += [
        f"warning: split '{shared.split}' shares {plural(shared.records, 'record')} with split "
        f"'{shared.other}', byte for byte: remove them, or metrics will look too good"
        for shared in manifest.shared_records
    ]
    if manifest.quarantined:
        lines.append(
            f"{plural(manifest.quarantined, 'broken record')} left out: "
            f"see {output.rstrip('/')}/quarantine.jsonl"
        )
    return lines


def _uneven_lanes(manifest: "Manifest") -> list[str]:
    """Return a line if the shortest lane ends an epoch with many records left over."""
    from tenfold.data.planning.lanes import deal_lanes

    if not manifest.has_split(_TRAIN):
        return []
    counts = [lane.num_records for lane in deal_lanes(manifest.split(_TRAIN), manifest.num_lanes)]
    used = min(counts) * len(counts)
    if sum(counts) - used <= _NOTABLE_LEFTOVER * sum(counts):
        return []
    return [
        f"the lanes of split '{_TRAIN}' hold {min(counts):,} to {max(counts):,} records: an epoch "
        f"trains on {used:,} of {sum(counts):,}, different ones each time"
    ]
