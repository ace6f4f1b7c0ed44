"""`tenfold verify`: compare every byte of a data set with its manifest."""

import json
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from absl import flags

from tenfold.data.errors import UserError
from tenfold.data.units import format_duration, format_size, plural
from tenfold.launcher.cli.flags import Arguments, FlagValues

if TYPE_CHECKING:
    from tenfold.data.integrity.verify_shards import Verification

USAGE: Final = "--shards=PATH [--flag=value …]"


def define_flags(fv: FlagValues) -> None:
    """Define the flags of `verify`."""
    flags.DEFINE_string("shards", "", "folder of shards: a path or gs://…", flag_values=fv)
    flags.DEFINE_list(
        "split", [], "comma-separated names of splits to read; by default all", flag_values=fv
    )
    flags.DEFINE_integer(
        "processes", 0, "number of reading processes; 0: one per processor", flag_values=fv
    )
    flags.DEFINE_enum(
        "format", "text", ["text", "json"], "format of the printed result", flag_values=fv
    )


def run(fv: FlagValues, args: Arguments) -> int:
    """Print every problem, or that there is none; return the exit status, 0 or 1."""
    args.expect_none()
    if not fv.shards:
        raise UserError("--shards is missing: name the folder that holds manifest.json")
    from tenfold.data.integrity.verify_shards import verify_shards
    from tenfold.data.runtime.cpus import usable_cpus
    from tenfold.data.storage.read_manifest import read_manifest

    started = time.monotonic()
    manifest = read_manifest(fv.shards)
    result = verify_shards(
        fv.shards, manifest, splits=fv.split, processes=fv.processes or usable_cpus()
    )
    seconds = time.monotonic() - started
    if fv.format == "json":
        print(json.dumps(to_json(result, fv.shards, seconds), indent=1))
    else:
        _print(result, fv.shards, seconds)
    return 1 if result.problems else 0


def to_json(result: "Verification", shards: str, seconds: float) -> dict[str, Any]:
    """Return the result as the object that ``--format=json`` prints."""
    from tenfold.data.integrity.verify_shards import damaged_shards

    return {
        "shards": shards,
        "sound": not result.problems,
        "num_shards": result.shards,
        "damaged_shards": damaged_shards(result.problems),
        "records": result.records,
        "bytes": result.bytes,
        "problems": list(result.problems),
        "seconds": round(seconds, 3),
    }


def _print(result: "Verification", shards: str, seconds: float) -> None:
    from tenfold.data.integrity.verify_shards import damaged_shards

    for problem in result.problems:
        print(problem)
    print(
        f"{shards}: read {plural(result.shards, 'shard')}, {plural(result.records, 'record')}, "
        f"{format_size(result.bytes)} in {format_duration(seconds)}",
        file=sys.stderr if result.problems else sys.stdout,
    )
    if not result.problems:
        print("every byte is as the manifest says")
        return
    damaged = plural(damaged_shards(result.problems), "shard")
    print(f"tenfold: {damaged} of {shards} damaged", file=sys.stderr)
