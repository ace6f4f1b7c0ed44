"""`tenfold verify`: is every byte of a data set what the manifest says?"""

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
    """Defines the flags of `verify`."""
    flags.DEFINE_string("shards", "", "folder of shards: a path or gs://…", flag_values=fv)
    flags.DEFINE_list("split", [], "splits to read; all where none is given", flag_values=fv)
    flags.DEFINE_integer(
        "processes", 0, "processes that read; 0: one per processor", flag_values=fv
    )
    flags.DEFINE_enum(
        "format", "text", ["text", "json"], "how the result is printed", flag_values=fv
    )


def run(fv: FlagValues, args: Arguments) -> int:
    """Prints what is wrong, or that nothing is; returns 0 or 1."""
    args.expect_none()
    if not fv.shards:
        raise UserError("--shards is missing: name the folder that holds manifest.json")
    from tenfold.data.integrity.verify_shards import verify_shards
    from tenfold.data.runtime.process_pool import usable_cpus
    from tenfold.data.storage.read_manifest import read_manifest

    started = time.monotonic()
    manifest = read_manifest(fv.shards)
    found = verify_shards(
        fv.shards, manifest, splits=fv.split, processes=fv.processes or usable_cpus()
    )
    seconds = time.monotonic() - started
    if fv.format == "json":
        print(json.dumps(to_json(found, fv.shards, seconds), indent=1))
    else:
        _print(found, fv.shards, seconds)
    return 1 if found.problems else 0


def to_json(found: "Verification", shards: str, seconds: float) -> dict[str, Any]:
    """Returns what was found, for a program."""
    from tenfold.data.integrity.verify_shards import damaged_shards

    return {
        "shards": shards,
        "sound": not found.problems,
        "num_shards": found.shards,
        "damaged_shards": damaged_shards(found.problems),
        "records": found.records,
        "bytes": found.bytes,
        "problems": list(found.problems),
        "seconds": round(seconds, 3),
    }


def _print(found: "Verification", shards: str, seconds: float) -> None:
    from tenfold.data.integrity.verify_shards import damaged_shards

    for problem in found.problems:
        print(problem)
    print(
        f"{shards}: read {plural(found.shards, 'shard')}, {plural(found.records, 'record')}, "
        f"{format_size(found.bytes)} in {format_duration(seconds)}",
        file=sys.stderr if found.problems else sys.stdout,
    )
    if not found.problems:
        print("every byte is as the manifest says")
        return
    damaged = plural(damaged_shards(found.problems), "shard")
    print(f"tenfold: {damaged} of {shards} not as it should be", file=sys.stderr)
