"""The flags that `evaluate` and `predict` share, and the launch that they become."""

import os
from typing import Final

from absl import flags

from tenfold.data.errors import UserError
from tenfold.data.planning.mixture_shares import check_one_folder
from tenfold.data.reading.decoding.decoders import AUTO, DECODERS
from tenfold.data.storage.folder import is_url
from tenfold.data.storage.open_folder import open_folder
from tenfold.data.storage.read_manifest import read_manifest
from tenfold.launcher.backends.backend_registry import load_submitter
from tenfold.launcher.cli import launch_flags
from tenfold.launcher.cli.feed_flags import (
    OPTION_FLAGS,
    define_feed_flags,
    feed_options,
    map_name,
)
from tenfold.launcher.cli.flags import Arguments, FlagValues
from tenfold.launcher.cli.prepare.prepare_launch import options_of_backend
from tenfold.launcher.cli.prepare.reachability import check_reach
from tenfold.launcher.cli.prepare.submit import flag_words
from tenfold.launcher.cli.train_flags import define_cache_flags, image_size_from_flags
from tenfold.launcher.job.run_dir import JOB_FILE, default_run_dir
from tenfold.launcher.worker.python_argv import module_argv, remote_module_argv
from tenfold.models.inference.inference_config import InferenceConfig

WORKER_MODULE: Final = "tenfold.launcher.worker.inference"


def define_inference_flags(fv: FlagValues, *, split: str) -> None:
    """Define the flags of both commands.

    Args:
      fv: the flags.
      split: the default of --split.
    """
    with fv.group("Model and data"):
        flags.DEFINE_string(
            "model", None, "run directory of a training (its model, else its newest checkpoint), "
            "or a .keras file; may be at gs://…", flag_values=fv,
        )  # fmt: skip
        flags.DEFINE_string("shards", None, "folder (or gs://…) of shards", flag_values=fv)
        flags.DEFINE_string("split", split, "name of the split", flag_values=fv)
        flags.DEFINE_integer(
            "global_batch_size", 256, "records per step over all workers", 1, flag_values=fv
        )
        flags.DEFINE_string(
            "image_size", None, "images are resized to this: HEIGHTxWIDTH or one number, in "
            "pixels (default: what the model takes)", flag_values=fv,
        )  # fmt: skip
        flags.DEFINE_string(
            "decoder", AUTO, f"{AUTO} (the fastest installed), {', '.join(DECODERS)}, "
            "module:name or file.py:name", flag_values=fv,
        )  # fmt: skip
        flags.DEFINE_integer("num_workers", 1, "number of workers", 1, flag_values=fv)
    define_feed_flags(fv)
    define_cache_flags(fv)
    launch_flags.define_job_flags(fv)


def config_from_flags(fv: FlagValues, task: str) -> InferenceConfig:
    """Return the configuration that the shared flags give.

    Raises:
      UserError: a flag is missing or has a wrong value, or there is no such split.
    """
    for name in ("model", "shards"):
        if not fv[name].value:
            raise UserError(f"--{name} is missing: give --model=RUN_DIR --shards=PATH")
    check_one_folder(fv.shards, task)
    if not is_far(fv):
        read_manifest(fv.shards).split(fv.split)  # raises UserError if there is none
        check_reach(fv.backend, fv.shards)
        _check_model(absolute(fv.model))
    return InferenceConfig(
        task=task,
        model=path_for_workers(fv, "model"),
        shards=path_for_workers(fv, "shards"),
        split=fv.split,
        global_batch_size=fv.global_batch_size,
        image_size=image_size_from_flags(fv),
        decoder=fv.decoder,
        feed=feed_options(fv) if any(fv[name].present for name in OPTION_FLAGS) else None,
        map=map_name(fv) if fv["map"].present else None,
        cache=fv.cache,
        cache_dir=fv.cache_dir,
        cache_bytes=fv.cache_size,
        working_dir=os.getcwd(),
    )


def launch_words(
    fv: FlagValues, args: Arguments, config: InferenceConfig
) -> tuple[list[str], tuple[str, ...]]:
    """Return the flags of `launch`, and the program, that run an evaluation or a prediction.

    The job is a launch of a program of our own, so that it runs on every back end, and every flag
    of a job means what it means for `launch`.

    Raises:
      UserError: there are arguments without a flag.
    """
    if args.positional or args.program:
        word = (*args.positional, *args.program)[0]
        raise UserError(f"unexpected argument '{word}': flags are written --name=value")
    job = FlagValues()
    launch_flags.define_job_flags(job)
    of_backends = launch_flags.backend_flag_names(fv)
    names = [name for name in (*job, *of_backends) if fv[name].present]
    words = [word for name in names for word in flag_words(fv[name])]
    words.append(f"--num_workers={fv.num_workers}")
    if not fv.run_dir:
        words.append(f"--run_dir={default_run_dir(config.task)}")
    return words, worker_program(fv, config)


def worker_program(fv: FlagValues, config: InferenceConfig) -> tuple[str, ...]:
    """Return the program of every worker."""
    arguments = [config.to_json()]
    if is_far(fv):
        return remote_module_argv(WORKER_MODULE, arguments, python="python")
    return module_argv(WORKER_MODULE, arguments)


def is_far(fv: FlagValues) -> bool:
    """Whether the workers do not see this machine's files."""
    submitter = load_submitter(fv.backend, options_of_backend(fv))
    return submitter is not None and submitter.far


def path_for_workers(fv: FlagValues, name: str) -> str:
    """Return the path that a flag gives, as the workers can use it.

    Raises:
      UserError: it is relative, and the workers do not see this machine's files.
    """
    path: str = fv[name].value
    if is_far(fv) and not is_url(path) and not os.path.isabs(path):
        raise UserError(f"--{name}={path}: give gs://… or an absolute path on the workers")
    return absolute(path)


def absolute(path: str) -> str:
    """Return a path that means the same in another folder; URLs are unchanged."""
    return path if is_url(path) else os.path.abspath(os.path.expanduser(path))


def _check_model(path: str) -> None:
    """Check that a model can be there.

    Raises:
      UserError: there is neither a file nor the run directory of a training.
    """
    if path.endswith(".keras"):
        folder, _, name = path.rpartition("/")
        found = open_folder(folder).entry(name) is not None
    else:
        found = open_folder(path).entry(JOB_FILE) is not None
    if not found:
        raise UserError(
            f"--model={path} is neither a .keras file nor the run directory of a training"
        )
