"""``tenfold evaluate``: the loss and metrics of a trained model on a split."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from absl import flags

from tenfold.data.errors import UserError
from tenfold.launcher.cli import launch_flags
from tenfold.launcher.cli.commands import launch
from tenfold.launcher.cli.flags import Arguments, FlagValues
from tenfold.launcher.cli.inference_flags import (
    config_from_flags,
    define_inference_flags,
    launch_words,
)
from tenfold.models.inference.inference_config import EVALUATE

USAGE: Final = "--model=RUN_DIR|FILE.keras --shards=PATH [--split=validation] [--flag=value …]"

MOST_USED: Final = ("model", "shards", "split", "metric", "num_workers", "backend")


def define_flags(fv: FlagValues) -> None:
    """Define the flags of evaluate."""
    define_inference_flags(fv, split="validation")
    with fv.group("Model and data"):
        flags.DEFINE_multi_string(
            "metric", [], "metric in place of the model's own: one of Keras as AUC, module:name "
            "or file.py:name; repeatable", flag_values=fv,
        )  # fmt: skip
        flags.DEFINE_string(
            "loss", "", "loss in place of the model's own, as Keras names it", flag_values=fv
        )
        flags.DEFINE_bool(
            "follow", False, "evaluate each new checkpoint of the run directory, until its "
            "training ends", flag_values=fv,
        )  # fmt: skip


def define_argv_flags(fv: FlagValues, argv: Sequence[str]) -> None:
    """Define the flags of the back end that `argv` names."""
    launch_flags.define_backend_flags(fv, argv)


def run(fv: FlagValues, args: Arguments) -> int:
    """Evaluate on all workers; return the exit status."""
    config = config_from_flags(fv, EVALUATE)
    config = replace(config, metrics=tuple(fv.metric), loss=fv.loss, follow=fv.follow)
    if config.follow and config.model.endswith(".keras"):
        raise UserError(
            "--follow waits for the checkpoints of a training: give its run directory as "
            f"--model, not {fv.model}"
        )
    return launch.run_words(*launch_words(fv, args, config))
