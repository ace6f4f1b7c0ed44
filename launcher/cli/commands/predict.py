"""``tenfold predict``: the outputs of a trained model for every record of a split."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from absl import flags

from tenfold.data.errors import UserError
from tenfold.data.storage.read_manifest import read_manifest
from tenfold.launcher.cli import launch_flags
from tenfold.launcher.cli.commands import launch
from tenfold.launcher.cli.flags import Arguments, FlagValues
from tenfold.launcher.cli.inference_flags import (
    config_from_flags,
    define_inference_flags,
    is_far,
    launch_words,
    path_for_workers,
)
from tenfold.models.inference.inference_config import OUTPUT_FORMATS, PARQUET, PREDICT, check_kept

USAGE: Final = "--model=RUN_DIR|FILE.keras --shards=PATH --output=PATH [--flag=value …]"

MOST_USED: Final = ("model", "shards", "split", "output", "keep", "num_workers", "backend")


def define_flags(fv: FlagValues) -> None:
    """Define the flags of predict."""
    define_inference_flags(fv, split="test")
    with fv.group("Model and data"):
        flags.DEFINE_string("output", None, "folder (or gs://…) of predictions", flag_values=fv)
        flags.DEFINE_list(
            "keep", [], "features that are kept beside the predictions, as id,label; NAME:COLUMN "
            "gives the column another name", flag_values=fv,
        )  # fmt: skip
        flags.DEFINE_enum(
            "output_format", PARQUET, OUTPUT_FORMATS, "format of the files", flag_values=fv
        )


def define_argv_flags(fv: FlagValues, argv: Sequence[str]) -> None:
    """Define the flags of the back end that `argv` names."""
    launch_flags.define_backend_flags(fv, argv)


def run(fv: FlagValues, args: Arguments) -> int:
    """Predict on all workers; return the exit status."""
    if not fv.output:
        raise UserError("--output is missing: the folder that the predictions are written to")
    config = config_from_flags(fv, PREDICT)
    if not is_far(fv):
        check_kept(parse_keep(fv.keep), read_manifest(fv.shards))
    config = replace(
        config,
        output=path_for_workers(fv, "output"),
        output_format=fv.output_format,
        keep=parse_keep(fv.keep),
    )
    return launch.run_words(*launch_words(fv, args, config))


def parse_keep(words: list[str]) -> dict[str, str]:
    """Return the columns of the features to keep, by feature.

    Args:
      words: ``NAME`` or ``NAME:COLUMN``.

    Raises:
      UserError: a name is empty, or stands twice.
    """
    columns: dict[str, str] = {}
    for word in words:
        name, _, column = word.partition(":")
        column = column or name
        if not name or name in columns or column in columns.values():
            raise UserError(f"--keep={','.join(words)}: '{word}' is empty or stands twice")
        columns[name] = column
    return columns
