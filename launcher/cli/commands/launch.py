"""``tenfold launch``: runs a job, the built-in trainer or a program of the user's own."""

import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

from tenfold.data.errors import UserError
from tenfold.data.integrity.salvage import salvage_shards
from tenfold.launcher.backends.backend_registry import load_submitter
from tenfold.launcher.cli import launch_flags, prepare_launch
from tenfold.launcher.cli.flags import Arguments, FlagValues
from tenfold.launcher.cli.host_check import check_hosts
from tenfold.launcher.cli.prepare_launch import Launch
from tenfold.launcher.cli.submit import submit
from tenfold.launcher.cli.write_flags import write_from_flags
from tenfold.launcher.display.history import HistoryView
from tenfold.launcher.display.open_view import open_view
from tenfold.launcher.display.summary import result_text
from tenfold.launcher.display.view import View
from tenfold.launcher.job.environment_file import write_environment_file
from tenfold.launcher.job.job_result import JobResult
from tenfold.launcher.job.job_spec import JobSpec, worker_env
from tenfold.launcher.job.remote_run_dir import open_run_dir
from tenfold.launcher.job.run_dir import HISTORY_FILE
from tenfold.launcher.supervisor.fault_injection import FaultInjector, spoil_shards
from tenfold.launcher.supervisor.supervisor import Supervisor

USAGE: Final = (
    "--shards=PATH [--flag=value …]\n"
    "       tenfold launch --source=PATH --output=PATH [--flag=value …]\n"
    "       tenfold launch [--flag=value …] -- program args…"
)

EXIT_STATUS: Final = {"succeeded": 0, "failed": 1}


def define_flags(fv: FlagValues) -> None:
    """Defines the flags of launch."""
    launch_flags.define_flags(fv)


def run(fv: FlagValues, args: Arguments) -> int:
    """Checks everything, runs the job, prints its result; returns the exit status."""
    submitter = load_submitter(fv.backend, prepare_launch.options_of_backend(fv))
    if submitter is not None:
        if fv.on_bad_record == "skip" and fv.shards:
            raise UserError(
                f"--on_bad_record=skip looks for broken records before the workers start, which "
                f"backend '{fv.backend}' cannot: find them with 'tenfold verify'"
            )
        return submit(submitter, fv, args)
    write_first = bool(fv.source) and not args.program
    launch = prepare_launch.prepare(fv, args, shards_exist=not write_first)
    if fv.dry_run:
        if write_first:
            print(f"would write {fv.source} to {fv.output} first ('tenfold plan' shows how)")
        print(_describe(launch))
        return 0
    if write_first:
        write_from_flags(fv)
        launch = prepare_launch.prepare(fv, args)
    with launch.backend.opened(launch.hosts):
        return _run(launch, fv)


def _run(launch: Launch, fv: FlagValues) -> int:
    view = open_view(show_tf_logs=fv.show_tf_logs)
    check_hosts(launch, view)
    run_dir = open_run_dir(launch.spec.run_dir, note=view.note)
    supervisor = Supervisor(
        spec=_spoiled(launch, run_dir.path),
        backend=launch.backend,
        hosts=launch.hosts,
        run_dir=run_dir,
        view=_recorded(launch, view, run_dir.path),
        choose_cluster=launch.choose_cluster,
        how=prepare_launch.supervision(fv, launch.counts),
        injector=FaultInjector(launch.faults),
        passed_env=launch.passed_env,
    )
    try:
        salvage(launch, view, max_bad_records=fv.max_bad_records)
        result = supervisor.run()
    finally:
        run_dir.close()
    print(result.to_json() if fv.format == "json" else result_text(result, run_dir.where), end="")
    sys.stdout.flush()
    return _exit_status(result)


def _recorded(launch: Launch, view: View, run_dir: Path) -> View:
    """Returns `view`, its events written down in the run directory for the report."""
    write_environment_file(run_dir)
    return HistoryView(view, run_dir / HISTORY_FILE, hosts=[host.name for host in launch.hosts])


def salvage(launch: Launch, view: View, *, max_bad_records: int) -> None:
    """With --on_bad_record=skip, reads all shards and puts aside what is left of damaged ones.

    Raises:
      JobError: there are more broken records than `max_bad_records`.
    """
    into = (launch.spec.train or {}).get("salvage")
    if not into:
        return
    saved = salvage_shards(launch.spec.train["shards"], into, max_bad_records=max_bad_records)
    for bad in saved.bad_records:
        view.note(f"skipped: {bad}")


def _spoiled(launch: Launch, run_dir: Path) -> JobSpec:
    """Returns the job, on shards with a flipped bit where a drill wants them."""
    spec = launch.spec
    for fault in launch.faults:
        if fault.kind == "bad_shard":
            if not spec.train:
                raise UserError("--inject=bad_shard is for the built-in trainer")
            shards = spoil_shards(
                spec.train["shards"],
                run_dir / "drill-shards",
                worker=fault.worker,
                num_workers=spec.num_workers,
            )
            spec = replace(spec, train={**spec.train, "shards": shards})
    return spec


def _exit_status(result: JobResult) -> int:
    if result.state == "cancelled":
        return 128 + (result.signal or signal.SIGINT)  # as shells tell a signal
    return EXIT_STATUS[result.state]


def _describe(launch: Launch) -> str:
    spec, cluster = launch.spec, launch.choose_cluster(launch.hosts)
    lines = [f"run directory  {spec.run_dir}", f"program        {' '.join(spec.argv)}"]
    if spec.train:
        lines += ["training"] + [f"  {name} = {value}" for name, value in spec.train.items()]
    for index, host in enumerate(launch.hosts):
        lines.append(f"worker {index} on {host.name}")
        env = worker_env(spec, cluster, index)
        lines += [f"  {name}={value}" for name, value in env.items()]
    return "\n".join(lines)
