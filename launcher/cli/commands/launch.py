"""``tenfold launch``: runs a job, the built-in trainer or a program of the user's own.

What only some jobs need is imported where they need it: a program of the user's own starts without
the modules that read and write shards.
"""

import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from tenfold.launcher.cli import launch_flags
from tenfold.launcher.cli.flags import Arguments, FlagValues, parse_flags
from tenfold.launcher.cli.prepare.host_check import check_hosts
from tenfold.launcher.cli.prepare.prepare_launch import (
    Launch,
    check_shards,
    host_notes,
    prepare_launch,
)
from tenfold.launcher.cli.prepare.submit import prepare_submission, submit
from tenfold.launcher.cli.write_flags import WriteRequest, run_write
from tenfold.launcher.display.history import HistoryView
from tenfold.launcher.display.open_view import open_view
from tenfold.launcher.display.prometheus.metrics_file import MetricsFileView
from tenfold.launcher.display.summary import result_text
from tenfold.launcher.display.view import View
from tenfold.launcher.job.environment_file import write_environment_file
from tenfold.launcher.job.job_result import JobResult
from tenfold.launcher.job.job_spec import JobSpec, worker_env
from tenfold.launcher.job.remote_run_dir import open_run_dir
from tenfold.launcher.job.run_dir import (
    HISTORY_FILE,
    PROMETHEUS_FILE,
    SPOILED_SHARDS_FOLDER,
    RunDir,
)
from tenfold.launcher.supervisor.fault_injection import FaultInjector, spoil_shards
from tenfold.launcher.supervisor.supervisor import Supervisor

MOST_USED: Final = launch_flags.MOST_USED

USAGE: Final = (
    "--shards=PATH [--flag=value …]\n"
    "       tenfold launch --source=PATH --output=PATH [--flag=value …]\n"
    "       tenfold launch [--flag=value …] -- program args…"
)

EXIT_STATUS: Final = {"succeeded": 0, "failed": 1}


def define_flags(fv: FlagValues) -> None:
    """Define the flags of launch."""
    launch_flags.define_flags(fv)


def define_argv_flags(fv: FlagValues, argv: Sequence[str]) -> None:
    """Define the flags of the back end that `argv` names."""
    launch_flags.define_backend_flags(fv, argv)


def run(fv: FlagValues, args: Arguments) -> int:
    """Check everything, run the job, print its result; return the exit status."""
    if fv.backend == "join":
        from tenfold.launcher.cli.jobs.run_member import run_member

        return run_member(fv, args)
    submission = prepare_submission(fv, args)
    if submission is not None:
        print(submit(*submission, dry_run=fv.dry_run), end="")
        return 0
    launch = prepare_launch(fv, args)
    if fv.dry_run:
        print(_describe(launch))
        return 0
    if launch.write_first is not None:
        _write_first(launch.write_first)
        launch = check_shards(launch)
    with launch.backend.opened(launch.all_hosts):
        view = open_view(launch.spec, show_tf_logs=launch.show_tf_logs)
        check_hosts(launch, view)
        for note in (*_training_notes(launch.spec), *host_notes(launch)):
            view.note(note)
        result, run_dir = _supervise(launch, view)
    text = result.to_json() if launch.as_json else result_text(result, run_dir)
    print(text, end="", flush=True)
    return _exit_status(result)


def run_words(words: Sequence[str], program: tuple[str, ...]) -> int:
    """Run `launch` with the flags `words` and a program, for another command."""
    fv = FlagValues()
    define_flags(fv)
    define_argv_flags(fv, words)
    parse_flags(fv, words)
    return run(fv, Arguments((), program))


def _write_first(request: WriteRequest) -> None:
    from tenfold.launcher.cli.commands.write import remarks

    written = run_write(request)
    if written.manifest is not None:
        for line in remarks(written.manifest, request.output):
            print(line, file=sys.stderr)


def _training_notes(spec: JobSpec) -> Sequence[str]:
    if spec.train is None:
        return ()
    from tenfold.launcher.cli.prepare.preflight import training_notes

    return training_notes(spec.train, num_workers=spec.num_workers)


def _supervise(launch: Launch, view: View) -> tuple[JobResult, str]:
    """Run the job to its end; return its result and where its run directory is."""
    train = launch.spec.train
    run_dir = open_run_dir(
        launch.spec.run_dir, note=view.note, epochs=train.epochs if train else None
    )
    try:
        _salvage(launch, view)
        recorded = _recorded(launch, view, run_dir)
        supervisor = Supervisor(
            spec=_spoiled(launch, run_dir.path),
            backend=launch.backend,
            hosts=launch.hosts,
            run_dir=run_dir,
            view=recorded,
            choose_cluster=launch.choose_cluster,
            how=launch.supervision,
            spares=launch.spares,
            injector=FaultInjector(launch.faults),
            passed_env=launch.passed_env,
            measure=recorded.finish,
        )
        return supervisor.run(), run_dir.where
    finally:
        run_dir.close()


def _recorded(launch: Launch, view: View, run_dir: RunDir) -> MetricsFileView:
    """Return a view that also writes the files of the report and of Prometheus."""
    write_environment_file(run_dir.path)
    hosts = [host.name for host in launch.hosts]
    history = HistoryView(view, run_dir.path / HISTORY_FILE, hosts=hosts)
    return MetricsFileView(history, run_dir.path / PROMETHEUS_FILE, run_dir=run_dir.where)


def _salvage(launch: Launch, view: View) -> None:
    """With --on_bad_record=skip, reads all shards and copies the readable rest of damaged ones.

    Each record is parsed and its image decoded, as the workers will. This runs in other
    processes: this one must not import TensorFlow, and starts workers by fork.

    Raises:
      JobError: more than `max_bad_records` records are damaged.
    """
    train = launch.spec.train
    if train is None or not train.salvage:
        return
    from tenfold.data.integrity.salvage import salvage_shards
    from tenfold.data.reading.records.record_check import RecordCheck
    from tenfold.data.runtime.cpus import usable_cpus
    from tenfold.data.storage.read_manifest import read_manifest

    features = read_manifest(train.shards).features
    saved = salvage_shards(
        train.shards,
        train.salvage,
        max_bad_records=launch.max_bad_records,
        check=RecordCheck(features, decoder=train.decoder, working_dir=train.working_dir),
        processes=usable_cpus(),
    )
    for damaged in saved.bad_records:
        view.note(f"skipped: {damaged}")


def _spoiled(launch: Launch, run_dir: Path) -> JobSpec:
    """Return the job; with --inject=bad_shard, on a copy of the shards with a flipped bit."""
    spec = launch.spec
    for fault in launch.faults:
        if fault.kind == "bad_shard":
            assert spec.train, "`prepare_launch` refuses this fault for other programs"
            shards = spoil_shards(
                spec.train.shards,
                run_dir / SPOILED_SHARDS_FOLDER,
                worker=fault.worker,
                num_workers=spec.num_workers,
            )
            spec = replace(spec, train=replace(spec.train, shards=shards))
    return spec


def _exit_status(result: JobResult) -> int:
    if result.state == "cancelled":
        return 128 + (result.signal or signal.SIGINT)  # as shells report a signal
    return EXIT_STATUS[result.state]


def _describe(launch: Launch) -> str:
    # Nothing has been started that could ask the hosts for the addresses of an interface.
    spec, cluster = launch.spec, replace(launch, interface="").choose_cluster(launch.hosts)
    lines = []
    if launch.interface:
        lines.append(f"addresses      those of {launch.interface}, in place of the ones below")
    if write := launch.write_first:
        lines.append(
            f"would write {write.source} to {write.output} first ('tenfold plan' shows how)"
        )
    lines += [f"run directory  {spec.run_dir}", f"program        {' '.join(spec.argv)}"]
    if spec.train:
        lines += ["training"] + [
            f"  {name} = {value}" for name, value in spec.train.to_json().items()
        ]
    for index, host in enumerate(launch.hosts):
        lines.append(f"worker {index} on {host.name}")
        env = worker_env(spec, cluster, index)
        lines += [f"  {name}={value}" for name, value in env.items()]
    lines += [f"spare host {name}" for name in dict.fromkeys(host.name for host in launch.spares)]
    return "\n".join(lines)
