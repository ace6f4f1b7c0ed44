"""Turn the flags of `launch` into a `JobSpec`: what runs on every worker."""

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from tenfold.data.errors import UserError
from tenfold.data.planning.mixture_shares import DataShare, parse_data_shares
from tenfold.data.storage.folder import is_url
from tenfold.launcher.cli.flags import Arguments, FlagValues
from tenfold.launcher.cli.prepare.reachability import check_program, check_reach
from tenfold.launcher.cli.train_flags import train_config, train_flag_names
from tenfold.launcher.cli.write_flags import source_from_flags
from tenfold.launcher.job.job_spec import ALL_GPUS, JobSpec
from tenfold.launcher.job.run_dir import absolute_run_dir, check_usable, default_run_dir
from tenfold.launcher.worker.environment import remote_worker_defaults
from tenfold.launcher.worker.python_argv import module_argv, remote_module_argv
from tenfold.models.train_config import TrainConfig

WORKER_MODULE: Final = "tenfold.launcher.worker.trainer"

_FAR_GPUS: Final = (
    "the platform gives containers their GPUs: --pod_gpus, --accelerator, --pod_patch"
)

_PASSWORD: Final = re.compile(r"://[^/@\s:]*:[^/@\s]+@")


def prepare_job(fv: FlagValues, args: Arguments, *, env: dict[str, str]) -> JobSpec:
    """Return the job for hosts that share this machine's files. Shards are not looked at.

    Args:
      fv: the flags.
      args: the user's own program, if any.
      env: environment variables that every worker gets.

    Raises:
      UserError: a flag or the program is missing, wrong, or not for this kind of job.
    """
    _refuse_positional(args)
    _refuse_passwords(fv, args)
    run_dir = _run_dir(fv, args.program)
    if fv.backend != "join":  # where a member may come when a short job has ended already
        check_usable(run_dir, epochs=None if args.program else fv.epochs)
    if args.program:
        return _program_job(fv, args.program, run_dir, env=env)
    data_sets = [replace(each, folder=_absolute(each.folder)) for each in _data_sets(fv)]
    config = train_config(
        fv,
        data_sets=data_sets,
        run_dir=run_dir,
        validation_shards=_absolute(fv.validation_shards) if fv.validation_shards else "",
    )
    for shards in config.folders:
        check_reach(fv.backend, shards)
    return _training_job(config, num_workers=fv.num_workers, env=env)


def prepare_far_job(fv: FlagValues, args: Arguments) -> JobSpec:
    """Return the job for machines that do not see this machine's files.

    Raises:
      UserError: as `prepare_job`, or a path is relative, which means nothing over there.
    """
    _refuse_positional(args)
    _refuse_passwords(fv, args)
    if fv.pass_env:
        raise UserError(
            f"--pass_env is not for --backend={fv.backend}, where the values would be written "
            "down: keep them in a secret of the platform, as --secret_env does on Kubernetes"
        )
    if not fv.run_dir or not _is_whole(fv.run_dir):
        raise UserError(
            f"--backend={fv.backend} needs --run_dir: gs://… or an absolute path on the workers"
        )
    if fv.gpus_per_worker:
        raise UserError(f"--gpus_per_worker is not for --backend={fv.backend}: {_FAR_GPUS}")
    if fv.network_interface:
        raise UserError(
            f"--network_interface is not for --backend={fv.backend}, whose pods and machines have "
            "one address each"
        )
    env = {**remote_worker_defaults(), **device_env(fv)}
    if args.program:
        _refuse_training_flags(fv)
        return JobSpec(args.program, fv.num_workers, fv.run_dir, env=env)
    if source_from_flags(fv):
        raise UserError(f"--source is not for --backend={fv.backend}: 'tenfold write' it first")
    data_sets = _data_sets(fv)
    named = [("shards", each.folder) for each in data_sets]
    for flag, path in (*named, ("validation_shards", fv.validation_shards)):
        if path and not _is_whole(path):
            raise UserError(f"--{flag}={path}: give gs://… or an absolute path on the workers")
    config = train_config(
        fv, data_sets=data_sets, run_dir=fv.run_dir, validation_shards=fv.validation_shards
    )
    config = replace(config, working_dir="")
    argv = remote_module_argv(WORKER_MODULE, python="python")
    return JobSpec(argv, fv.num_workers, fv.run_dir, env=env, train=config)


def device_env(fv: FlagValues) -> dict[str, str]:
    """Return the variables of all workers for the flags of devices and network."""
    env = {}
    if fv.gpu_memory_growth:
        env["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
    if fv.network_interface:
        env["NCCL_SOCKET_IFNAME"] = fv.network_interface
    return env


def gpus_per_worker(fv: FlagValues) -> str:
    """Return --gpus_per_worker: "", ``all`` or a number.

    Raises:
      UserError: it is something else.
    """
    text: str = fv.gpus_per_worker.strip().lower()
    if text in ("", ALL_GPUS):
        return text
    if not text.isdecimal():
        raise UserError(
            f"--gpus_per_worker={fv.gpus_per_worker}: give a number, {ALL_GPUS} or 0 for none"
        )
    return str(int(text))


def _refuse_positional(args: Arguments) -> None:
    """Raise UserError for arguments without a flag, which are mostly a program without ``--``."""
    if args.positional:
        program = shlex.join((*args.positional, *args.program))
        raise UserError(
            f"unexpected argument '{args.positional[0]}': a program goes after '--' "
            f"(tenfold launch … -- {program}), flags are written --name=value"
        )


def _run_dir(fv: FlagValues, program: Sequence[str]) -> str:
    if fv.run_dir:
        return absolute_run_dir(fv.run_dir)
    script = next((word for word in program if word.endswith(".py")), *program[:1] or [""])
    name = Path(script).stem if program else fv.model.replace(".py:", "-")
    return absolute_run_dir(str(default_run_dir(name)))


def _program_job(
    fv: FlagValues, program: tuple[str, ...], run_dir: str, *, env: dict[str, str]
) -> JobSpec:
    _refuse_training_flags(fv)
    cwd = os.getcwd()
    check_program(program, cwd=cwd)
    return JobSpec(program, fv.num_workers, run_dir, cwd=cwd, env=env)


def _training_job(config: TrainConfig, *, num_workers: int, env: dict[str, str]) -> JobSpec:
    return JobSpec(
        argv=module_argv(WORKER_MODULE),
        num_workers=num_workers,
        run_dir=config.run_dir,
        cwd=config.working_dir,
        env=env,
        train=config,
    )


def _refuse_passwords(fv: FlagValues, args: Arguments) -> None:
    """Raise UserError for a URL with a password in it.

    All users of a machine can read command lines, and the run directory holds a copy.
    """
    given = {f"--{name}": fv[name].value for name in fv if fv[name].present}
    given["the program's arguments"] = list(args.program)
    for where, value in given.items():
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and _PASSWORD.search(text):
                raise UserError(
                    f"{where}: '{_PASSWORD.sub('://…@', text)}' has a password in it, which all "
                    "users of this machine could read: put it into a file or an environment "
                    "variable (--pass_env passes these on)"
                )


def _refuse_training_flags(fv: FlagValues) -> None:
    for name in ("shards", "source", "output", *train_flag_names()):
        if fv[name].present:
            raise UserError(f"--{name} is for the built-in trainer: pass it to your program")


def _data_sets(fv: FlagValues) -> tuple[DataShare, ...]:
    """Return the shards to train on: one folder, or a mixture.

    Raises:
      UserError: there are none, or the flags contradict each other.
    """
    source = source_from_flags(fv)
    if source and fv.shards:
        raise UserError("give --shards or --source, not both")
    if source and not fv.output:
        raise UserError("--output is missing: the folder that --source is written to as shards")
    if not (source or fv.shards):
        raise UserError(
            "nothing to run: give --shards=PATH, --source=PATH --output=PATH, or '-- program …'"
        )
    if source:
        return (DataShare(fv.output),)
    data_sets = parse_data_shares(fv.shards)
    if len(data_sets) > 1 and fv.on_bad_record == "skip":
        raise UserError(
            "--on_bad_record=skip is not for mixtures: write the data sets without their broken "
            "records ('tenfold write --on_bad_record=skip')"
        )
    return data_sets


def _is_whole(path: str) -> bool:
    return is_url(path) or os.path.isabs(path)


def _absolute(path: str) -> str:
    return path if "://" in path else os.path.abspath(os.path.expanduser(path))
