"""`tenfold write`: a source becomes shards and a manifest."""

import json
import time
from typing import TYPE_CHECKING, Any, Final

from absl import flags

from tenfold.data.units import format_duration, format_size, plural
from tenfold.launcher.cli.flags import Arguments, FlagValues
from tenfold.launcher.cli.write_flags import define_write_flags, write_from_flags

if TYPE_CHECKING:
    from tenfold.data.format.manifest import Manifest
    from tenfold.data.writing.write_shards import WriteResult

USAGE: Final = "--source=PATH --output=PATH [--flag=value …] [-- --runner=… (with --engine=beam)]"


def define_flags(fv: FlagValues) -> None:
    """Defines the flags of `write`."""
    define_write_flags(fv)
    flags.DEFINE_enum(
        "engine", "local", ["local", "beam"],
        "what writes: processes here, or an Apache Beam pipeline whose options follow a --",
        flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_integer(
        "writer_index", 0, "which task of a processes this is, from 0", flag_values=fv
    )
    flags.DEFINE_integer(
        "num_writers", 1, "tasks that share the writing; the last to finish publishes",
        flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_bool(
        "dry_run", False, "say what would be written, change nothing", flag_values=fv
    )
    flags.DEFINE_enum(
        "format", "text", ["text", "json"], "how the result is printed", flag_values=fv
    )


def run(fv: FlagValues, args: Arguments) -> int:
    """Writes; says what was written; returns the exit status."""
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
    """Returns what a write has done, or with --dry_run would do, for a program.

    `complete` says whether the data set is published; `records` are those of the whole data set,
    by the plan until it is.
    """
    manifest = result.manifest
    planned = sum(split.examples * split.copies for split in result.plan.splits)
    return {
        "output": output,
        "complete": manifest is not None,
        "records": sum(split.num_records for split in manifest.splits) if manifest else planned,
        "num_shards": len(result.plan.tasks),
        "written": result.written,
        "kept": result.kept,
        "quarantined": manifest.quarantined if manifest else 0,
        "notes": list(result.notes),
        "seconds": round(seconds, 3),
    }


def summary(result: "WriteResult", output: str, seconds: float) -> str:
    """Returns what a write has done, or would do, for a person."""
    lines = list(result.notes)
    if result.dry_run:
        there = f", {result.kept} are there" if result.kept else ""
        shards = plural(result.written, "shard")
        lines.append(f"{output}: {shards} would be written{there}; nothing was changed")
    elif result.manifest is None:
        lines.append(
            f"{output}: this task has its {plural(result.written + result.kept, 'shard')}; "
            "other tasks have not finished theirs yet"
        )
    elif result.written == 0:
        lines.append(f"{output} holds these shards already: nothing to do")
    else:
        lines += _written(result, result.manifest, output, seconds)
    return "\n".join(lines)


def _written(
    result: "WriteResult", manifest: "Manifest", output: str, seconds: float
) -> list[str]:
    from tenfold.data.integrity.inspect_shards import describe_feature

    records = sum(split.num_records for split in manifest.splits)
    num_bytes = sum(split.num_bytes for split in manifest.splits)
    shards = sum(len(split.shards) for split in manifest.splits)
    kept = f" ({result.kept} of them were there)" if result.kept else ""
    lines = [
        f"{output}: {plural(records, 'record')}, {format_size(num_bytes)}, "
        f"{plural(shards, 'shard')}{kept} in {format_duration(seconds)}"
    ]
    shown = (f"{feature.name} ({describe_feature(feature)})" for feature in manifest.features)
    lines.append(f"features: {', '.join(shown)}")
    if manifest.quarantined:
        lines.append(
            f"{plural(manifest.quarantined, 'broken record')} left out: "
            f"see {output.rstrip('/')}/quarantine.jsonl"
        )
    return lines
