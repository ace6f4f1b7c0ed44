"""``tenfold launch --backend=join``: this host's worker of a job that somebody else starts."""

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from tenfold.data.errors import UserError
from tenfold.data.planning.cluster_task import ClusterTask, find_task
from tenfold.data.planning.worker_variables import INDEX_VARIABLE, NUMBER_VARIABLE
from tenfold.launcher.cli.flags import Arguments, FlagValues
from tenfold.launcher.cli.prepare.preflight import check_training
from tenfold.launcher.cli.prepare.prepare_job import device_env, prepare_job
from tenfold.launcher.cli.prepare.prepare_launch import options_of_backend
from tenfold.launcher.display.open_view import open_view
from tenfold.launcher.display.summary import result_text
from tenfold.launcher.job.job_spec import worker_env
from tenfold.launcher.supervisor.members.join_job import Joining, join, known_cluster
from tenfold.launcher.supervisor.watchdog import WatchPolicy
from tenfold.launcher.worker.environment import passed_environment, remote_worker_defaults

BACKEND: Final = "join"
# What one launcher of all workers does, but no member can do for the others.
_NOT_FOR_MEMBERS: Final = {
    "source": "'tenfold write' it first, once",
    "max_restarts": "what starts the workers restarts them, as sbatch --requeue does",
    "max_preemptions": "what starts the workers restarts them, as sbatch --requeue does",
    "min_workers": "what starts the workers decides how many there are",
    "spare_hosts": "what starts the workers decides how many there are",
    "regrow_after": "what starts the workers decides how many there are",
    "gpus_per_worker": "what starts the workers gives them GPUs, as srun --gpus-per-task does",
    "network_interface": "give each worker its own --host_address",
    "inject": "faults are for --backend=local and simulated hosts",
}


def run_member(fv: FlagValues, args: Arguments) -> int:
    """Run this host's worker to its end; return its exit status.

    Raises:
      UserError: the surroundings give no place, or a flag or the program cannot be used.
      JobError: another worker has not come, or runs another job.
    """
    joining = prepare_joining(fv, args, os.environ)
    if fv.dry_run:
        print(_describe(joining))
        return 0
    view = open_view(joining.spec, show_tf_logs=fv.show_tf_logs)
    try:
        status, result = join(joining, view)
    finally:
        view.close()
    if result is not None:
        text = result_text(result, joining.spec.run_dir)
        print(result.to_json() if fv.format == "json" else text, end="", flush=True)
    return status


def prepare_joining(fv: FlagValues, args: Arguments, environ: Mapping[str, str]) -> Joining:
    """Turn flags and environment into a member, complete before anything starts.

    Raises:
      UserError: as `run_member`.
    """
    _refuse_flags(fv)
    task = _find_task(fv, environ)
    if task.num_workers > 1 and not fv.run_dir:
        raise UserError(
            "--backend=join needs --run_dir: a folder (or gs://…) that all workers share"
        )
    spec = prepare_job(fv, args, env={**remote_worker_defaults(), **device_env(fv)})
    spec = replace(spec, num_workers=task.num_workers)
    if spec.train:
        check_training(spec.train, num_workers=task.num_workers)
    joining = Joining(
        spec=spec,
        task=task,
        address=options_of_backend(fv).get("host_address", ""),
        first_port=fv.port,
        grace_s=fv.grace,
        watch=WatchPolicy(fv.hang_timeout, fv.rendezvous_timeout),
        restart=_restart(environ),
        passed_env=passed_environment(fv.pass_env, environ),
    )
    known_cluster(joining)  # refuses addresses that cannot be used
    return joining


def _refuse_flags(fv: FlagValues) -> None:
    for name, remedy in _NOT_FOR_MEMBERS.items():
        if fv[name].present:
            raise UserError(f"--{name} is not for --backend={BACKEND}: {remedy}")
    if fv.on_bad_record == "skip":
        raise UserError(
            "--on_bad_record=skip looks for broken records before the workers start, which "
            f"--backend={BACKEND} cannot: find them with 'tenfold verify'"
        )


def _find_task(fv: FlagValues, environ: Mapping[str, str]) -> ClusterTask:
    given = fv.num_workers if fv["num_workers"].present else None
    if given is not None and not environ.get(INDEX_VARIABLE):
        environ = {**environ, NUMBER_VARIABLE: str(given)}
    task = find_task(environ)
    if task is None:
        raise UserError(
            f"--backend={BACKEND}: nothing here says which worker this is: start it with srun or "
            "mpirun, on a platform that docs/join.md names, or set TF_CONFIG"
        )
    if given not in (None, task.num_workers):
        raise UserError(f"--num_workers={given}, but this process is {task}")
    return task


def _restart(environ: Mapping[str, str]) -> int:
    text = environ.get("TENFOLD_RESTART") or environ.get("SLURM_RESTART_COUNT") or "0"
    return int(text) if text.isdecimal() else 0


def _describe(joining: Joining) -> str:
    task, spec = joining.task, joining.spec
    cluster = known_cluster(joining)
    lines = [
        f"place          {task}",
        f"run directory  {spec.run_dir}",
        f"program        {' '.join(spec.argv)}",
    ]
    if cluster is None:
        return "\n".join([*lines, "addresses      exchanged in the run directory"])
    env = worker_env(spec, cluster, task.index, restart=joining.restart)
    return "\n".join([*lines, *(f"  {name}={value}" for name, value in env.items())])
