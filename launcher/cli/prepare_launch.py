"""Turn the flags of `launch` into a `Launch`: every decision made before anything starts."""

import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from tenfold.data.errors import UserError
from tenfold.data.storage.folder import is_url
from tenfold.launcher.backends.backend_registry import backend_options, load_backend
from tenfold.launcher.backends.base import Backend, Host
from tenfold.launcher.cli.flags import Arguments, FlagValues
from tenfold.launcher.cli.preflight import check_program, check_reach, check_training
from tenfold.launcher.cli.train_flags import train_config, train_flag_names
from tenfold.launcher.job.faults import Fault
from tenfold.launcher.job.job_spec import ClusterSpec, JobSpec
from tenfold.launcher.job.run_dir import absolute_run_dir, check_usable, default_run_dir
from tenfold.launcher.supervisor.fault_injection import check_backend, parse_fault
from tenfold.launcher.supervisor.host_selection import worker_counts
from tenfold.launcher.supervisor.restarts import RestartPolicy
from tenfold.launcher.supervisor.supervisor import Supervision
from tenfold.launcher.supervisor.watchdog import WatchPolicy
from tenfold.launcher.worker.environment import (
    has_gpu,
    passed_environment,
    remote_worker_defaults,
    worker_defaults,
)
from tenfold.launcher.worker.python_argv import module_argv, remote_module_argv
from tenfold.models.train_config import TrainConfig

WORKER_MODULE: Final = "tenfold.launcher.worker.trainer"

_PASSWORD: Final = re.compile(r"://[^/@\s:]*:[^/@\s]+@")


@dataclass(frozen=True)
class Launch:
    """All that was decided before anything is started."""

    spec: JobSpec
    backend: Backend
    hosts: tuple[Host, ...]
    first_port: int | None
    counts: tuple[int, ...]
    faults: tuple[Fault, ...]
    passed_env: Mapping[str, str]

    def choose_cluster(self, hosts: Sequence[Host]) -> ClusterSpec:
        """Returns a cluster of `hosts` on ports that are free now."""
        return choose_cluster(self.backend, hosts, first_port=self.first_port)


def choose_cluster(
    backend: Backend, hosts: Sequence[Host], *, first_port: int | None
) -> ClusterSpec:
    """Returns a cluster of `hosts` on free ports, or on those from `first_port` on."""
    ports = backend.choose_ports(hosts, first_port)
    return ClusterSpec(
        tuple(f"{host.address}:{port}" for host, port in zip(hosts, ports, strict=True))
    )


def prepare(fv: FlagValues, args: Arguments, *, shards_exist: bool = True) -> Launch:
    """Turns flags into a launch, everything that can be checked cheaply checked.

    `shards_exist` is False before --source has been written to --output.

    Raises:
      UserError: something of it is wrong.
    """
    backend, hosts = choose_hosts(fv)
    env = _worker_defaults(hosts)
    spec, num_lanes = prepare_job(fv, args, env=env, shards_exist=shards_exist)
    faults = tuple(parse_fault(text, num_workers=fv.num_workers) for text in fv.inject)
    check_backend(faults, backend, fv.backend)
    return Launch(
        spec,
        backend,
        hosts,
        fv.port,
        counts=_counts(fv, num_lanes),
        faults=faults,
        passed_env=passed_environment(fv.pass_env, os.environ),
    )


def prepare_job(
    fv: FlagValues, args: Arguments, *, env: dict[str, str], shards_exist: bool
) -> tuple[JobSpec, int | None]:
    """Returns the job, checked, and the number of lanes of its shards where they are known.

    Raises:
      UserError: something of it is wrong.
    """
    Arguments(args.positional).expect_none()
    _refuse_passwords(fv, args)
    run_dir = _run_dir(fv, args.program)
    check_usable(run_dir)
    if args.program:
        return _program_job(fv, args.program, run_dir, env=env), None
    config = train_config(fv, shards=_absolute(_shards(fv)), run_dir=run_dir)
    check_reach(fv.backend, config.shards)
    num_lanes = check_training(config, num_workers=fv.num_workers) if shards_exist else None
    return _training_job(config, num_workers=fv.num_workers, env=env), num_lanes


def far_job(fv: FlagValues, args: Arguments) -> JobSpec:
    """Returns the job for machines whose files are not seen from here.

    Raises:
      UserError: something of it is wrong, or a path is not whole.
    """
    Arguments(args.positional).expect_none()
    _refuse_passwords(fv, args)
    if fv.pass_env:
        raise UserError(
            f"--pass_env is not for --backend={fv.backend}, where the values would be written "
            "down: keep them in a secret of the cluster and give --secret_env"
        )
    if not fv.run_dir or not _is_whole(fv.run_dir):
        raise UserError(
            f"--backend={fv.backend} needs --run_dir: gs://… or an absolute path on the workers"
        )
    env = remote_worker_defaults()
    if args.program:
        _refuse_training_flags(fv)
        return JobSpec(args.program, fv.num_workers, fv.run_dir, env=env)
    if fv.source:
        raise UserError(f"--source is not for --backend={fv.backend}: 'tenfold write' it first")
    shards = _shards(fv)
    if not _is_whole(shards):
        raise UserError(f"--shards={shards}: give gs://… or an absolute path on the workers")
    config = replace(train_config(fv, shards=shards, run_dir=fv.run_dir), working_dir="")
    argv = remote_module_argv(WORKER_MODULE, python="python")
    return JobSpec(argv, fv.num_workers, fv.run_dir, env=env, train=config)


def _counts(fv: FlagValues, num_lanes: int | None) -> tuple[int, ...]:
    least = fv.num_workers if fv.min_workers is None else fv.min_workers
    if least > fv.num_workers:
        raise UserError(f"min_workers {least} is above num_workers {fv.num_workers}")
    return worker_counts(fv.num_workers, least, num_lanes=num_lanes)


def choose_hosts(fv: FlagValues) -> tuple[Backend, tuple[Host, ...]]:
    """Returns the back end and the host of each worker.

    Raises:
      UserError: there is no such back end, or it has too few hosts.
    """
    if fv.num_workers < 1:
        raise UserError(f"num_workers is {fv.num_workers}: it must be at least 1")
    backend = load_backend(fv.backend, options_of_backend(fv))
    return backend, backend.hosts(fv.num_workers)


def options_of_backend(fv: FlagValues) -> dict[str, str]:
    """Returns the back ends' own options that were given."""
    names = [option.name for options in backend_options().values() for option in options]
    return {name: fv[name].value for name in names if fv[name].value is not None}


def _worker_defaults(hosts: Sequence[Host]) -> dict[str, str]:
    if any(host.remote for host in hosts):
        return remote_worker_defaults()
    return worker_defaults(os.environ, num_workers=len(hosts))


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


def _refuse_passwords(fv: FlagValues, args: Arguments) -> None:
    """Command lines can be read by all users of a machine, and stand in the run directory."""
    given = {f"--{name}": fv[name].value for name in fv if fv[name].present}
    given["the program's arguments"] = list(args.program)
    for where, value in given.items():
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and _PASSWORD.search(text):
                raise UserError(
                    f"{where}: '{_PASSWORD.sub('://…@', text)}' has a password in it, which all "
                    "users of this machine could read: put it into a file or an environment "
                    "variable (--pass_env hands these on)"
                )


def _refuse_training_flags(fv: FlagValues) -> None:
    for name in ("shards", "source", "output", *train_flag_names()):
        if fv[name].present:
            raise UserError(f"--{name} is for the built-in trainer: pass it to your program")


def _shards(fv: FlagValues) -> str:
    if fv.source and fv.shards:
        raise UserError("give --shards or --source, not both")
    if fv.source and not fv.output:
        raise UserError("--output is missing: the folder that --source is written to as shards")
    if not (fv.source or fv.shards):
        raise UserError(
            "nothing to run: give --shards=PATH, --source=PATH --output=PATH, or '-- program …'"
        )
    return str(fv.output if fv.source else fv.shards)


def _training_job(config: TrainConfig, *, num_workers: int, env: dict[str, str]) -> JobSpec:
    return JobSpec(
        argv=module_argv(WORKER_MODULE),
        num_workers=num_workers,
        run_dir=config.run_dir,
        cwd=config.working_dir,
        env=env,
        train=config,
    )


def _is_whole(path: str) -> bool:
    return is_url(path) or os.path.isabs(path)


def _absolute(path: str) -> str:
    return path if "://" in path else os.path.abspath(os.path.expanduser(path))


def supervision(fv: FlagValues, counts: tuple[int, ...]) -> Supervision:
    """Returns how the flags want the job to be looked after."""
    return Supervision(
        grace_s=fv.grace,
        restarts=RestartPolicy(fv.max_restarts, fv.max_preemptions),
        watch=WatchPolicy(fv.hang_timeout, fv.rendezvous_timeout),
        counts=counts,
        preload=fv.preload and sys.platform == "linux" and not has_gpu(),
    )
