"""``tenfold launch``: runs a job, the built-in trainer or a program of the user's own."""

import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from absl import flags

from tenfold.data.errors import UserError
from tenfold.launcher.arguments import Arguments
from tenfold.launcher.backends import Backend, Host, load_backend
from tenfold.launcher.checkup import ERROR, judge_hosts, look_at_hosts
from tenfold.launcher.environment import worker_defaults
from tenfold.launcher.flags import FlagValues, define_size
from tenfold.launcher.history import HISTORY_FILE, HistoryView
from tenfold.launcher.inventory import write_inventory
from tenfold.launcher.job import ClusterSpec, JobResult, JobSpec, worker_env
from tenfold.launcher.preflight import check_program, check_training
from tenfold.launcher.python import module_argv
from tenfold.launcher.report import result_text
from tenfold.launcher.restarts import RestartPolicy
from tenfold.launcher.rundir import RunDir, check_usable, default_run_dir
from tenfold.launcher.supervisor import Supervision, Supervisor
from tenfold.launcher.view import PlainView, View
from tenfold.launcher.watchdog import WatchPolicy
from tenfold.models.config import TrainConfig

SUMMARY: Final = "runs a job on several workers: the built-in trainer, or your own program"
USAGE: Final = "--shards=PATH [--flag=value …]   or   [--flag=value …] -- program args…"

WORKER_MODULE: Final = "tenfold.launcher.worker"
EXIT_STATUS: Final = {"succeeded": 0, "failed": 1}


def define_flags(fv: FlagValues) -> None:
    """Defines the flags of launch."""
    text, number = partial(flags.DEFINE_string, flag_values=fv), partial(_define_int, fv)
    text("shards", None, "folder (or gs://…) of shards to train on, as 'tenfold write' made it")
    number("num_workers", 4, "workers to start, one TensorFlow process each")
    text("backend", "local", "where the workers run: local")
    text("run_dir", None, "folder for logs, checkpoints, the result (default: runs/DATE-NAME)")
    number("port", None, "worker N listens on this TCP port + N (default: free ones)")
    text("model", "cnn", "cnn, resnet50, module:function or file.py:function")
    number("epochs", 1, "passes over the training split")
    number("global_batch_size", 64, "records per step over all workers")
    number("seed", 0, "seed of the order of records and of the initial weights", lower=0)
    text("image_size", None, "pictures are resized to this: HEIGHTxWIDTH or one number, in pixels")
    flags.DEFINE_float(
        "learning_rate", None, "learning rate (default: the model's own)", flag_values=fv
    )
    number("steps_per_execution", 16, "steps per call into TensorFlow")
    define_size(fv, "shuffle_buffer", 256 * 10**6, "memory for shuffling, per worker")
    number("max_restarts", 0, "crashes after which all workers start again", lower=0)
    number("max_preemptions", 100, "preemptions after which they start again", lower=0)
    seconds = partial(flags.DEFINE_float, lower_bound=0.0, flag_values=fv)
    seconds("grace", 20.0, "seconds from SIGTERM to SIGKILL when a job is stopped or preempted")
    seconds("hang_timeout", 60.0, "seconds of silence that are never a hang; 0: no watchdog")
    seconds("rendezvous_timeout", 120.0, "seconds that workers wait for one that does not come")
    flags.DEFINE_bool(
        "show_tf_logs", False, "show TensorFlow's start-up messages too", flag_values=fv
    )
    flags.DEFINE_bool("dry_run", False, "show what would run, start nothing", flag_values=fv)
    flags.DEFINE_enum(
        "format", "text", ["text", "json"], "how the result is printed", flag_values=fv
    )


def _define_int(
    fv: FlagValues, name: str, default: int | None, help_text: str, *, lower: int = 1
) -> None:
    flags.DEFINE_integer(name, default, help_text, lower_bound=lower, flag_values=fv)


@dataclass(frozen=True)
class Launch:
    """All that was decided before anything is started."""

    spec: JobSpec
    backend: Backend
    hosts: tuple[Host, ...]
    first_port: int | None

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


def run(fv: FlagValues, args: Arguments) -> int:
    """Checks everything, runs the job, prints its result; returns the exit status."""
    launch = prepare(fv, args)
    if fv.dry_run:
        print(_describe(launch))
        return 0
    view = PlainView(show_tf_logs=fv.show_tf_logs)
    check_hosts(launch, view)
    run_dir = RunDir(Path(launch.spec.run_dir))
    supervisor = Supervisor(
        spec=launch.spec,
        backend=launch.backend,
        hosts=launch.hosts,
        run_dir=run_dir,
        view=_recorded(launch, PlainView(show_tf_logs=fv.show_tf_logs), run_dir.path),
        choose_cluster=launch.choose_cluster,
        how=_supervision(fv),
    )
    try:
        result = supervisor.run()
    finally:
        run_dir.close()
    print(result.to_json() if fv.format == "json" else result_text(result, run_dir.path), end="")
    sys.stdout.flush()
    return _exit_status(result)


def _recorded(launch: Launch, view: View, run_dir: Path) -> View:
    """Returns `view`, its events written down in the run directory for the report."""
    write_inventory(run_dir)
    return HistoryView(view, run_dir / HISTORY_FILE, hosts=[host.name for host in launch.hosts])


def check_hosts(launch: Launch, view: View) -> None:
    """Looks at all hosts before anything is made or started; warnings go to the view.

    Raises:
      UserError: the job could not run there.
    """
    cluster = launch.choose_cluster(launch.hosts)
    reports = look_at_hosts(
        launch.backend, launch.hosts, cluster.workers, folder=launch.spec.run_dir
    )
    findings = judge_hosts(reports, needs_tensorflow=bool(launch.spec.train))
    for finding in findings:
        if finding.level == ERROR:
            raise UserError(finding.text)
        view.note(f"{finding.level}: {finding.text}")


def _exit_status(result: JobResult) -> int:
    if result.state == "cancelled":
        return 128 + (result.signal or signal.SIGINT)  # as shells tell a signal
    return EXIT_STATUS[result.state]


def _supervision(fv: FlagValues) -> Supervision:
    return Supervision(
        grace_s=fv.grace,
        restarts=RestartPolicy(fv.max_restarts, fv.max_preemptions),
        watch=WatchPolicy(fv.hang_timeout, fv.rendezvous_timeout),
    )


def prepare(fv: FlagValues, args: Arguments) -> Launch:
    """Turns flags into a launch, everything that can be checked cheaply checked.

    Raises:
      UserError: something of it is wrong.
    """
    Arguments(args.positional).expect_none()
    run_dir = _run_dir(fv, args.program)
    check_usable(run_dir)
    spec = _program_job(fv, args.program, run_dir) if args.program else _training_job(fv, run_dir)
    return Launch(spec, *choose_hosts(fv), fv.port)


def choose_hosts(fv: FlagValues) -> tuple[Backend, tuple[Host, ...]]:
    """Returns the back end and the host of each worker."""
    backend = load_backend(fv.backend)
    return backend, backend.hosts(fv.num_workers)


def _run_dir(fv: FlagValues, program: Sequence[str]) -> Path:
    if fv.run_dir:
        return Path(fv.run_dir).expanduser().absolute()
    script = next((word for word in program if word.endswith(".py")), *program[:1] or [""])
    name = Path(script).stem if program else fv.model.replace(".py:", "-")
    return default_run_dir(name).absolute()


_TRAINING_FLAGS: Final = (
    "shards", "model", "epochs", "global_batch_size", "seed", "image_size", "learning_rate",
    "steps_per_execution", "shuffle_buffer",
)  # fmt: skip


def _program_job(fv: FlagValues, program: tuple[str, ...], run_dir: Path) -> JobSpec:
    for name in _TRAINING_FLAGS:
        if fv[name].present:
            raise UserError(f"--{name} is for the built-in trainer: pass it to your program")
    cwd = os.getcwd()
    check_program(program, cwd=cwd)
    env = worker_defaults(os.environ, num_workers=fv.num_workers)
    return JobSpec(program, fv.num_workers, str(run_dir), cwd=cwd, env=env)


def _training_job(fv: FlagValues, run_dir: Path) -> JobSpec:
    if not fv.shards:
        raise UserError("nothing to run: give --shards=PATH, or '-- program args…'")
    config = TrainConfig(
        shards=_absolute(fv.shards),
        run_dir=str(run_dir),
        model=fv.model,
        epochs=fv.epochs,
        global_batch_size=fv.global_batch_size,
        seed=fv.seed,
        image_size=parse_image_size(fv.image_size),
        learning_rate=fv.learning_rate,
        steps_per_execution=fv.steps_per_execution,
        shuffle_buffer_bytes=fv.shuffle_buffer,
        working_dir=os.getcwd(),
    )
    check_training(config, num_workers=fv.num_workers)
    return JobSpec(
        argv=module_argv(WORKER_MODULE),
        num_workers=fv.num_workers,
        run_dir=str(run_dir),
        cwd=os.getcwd(),
        env=worker_defaults(os.environ, num_workers=fv.num_workers),
        train=config.to_json(),
    )


def _absolute(path: str) -> str:
    return path if "://" in path else os.path.abspath(os.path.expanduser(path))


def parse_image_size(text: str | None) -> tuple[int, int] | None:
    """Returns (height, width) of ``32x48`` or ``32``; None of None.

    Raises:
      UserError: it is neither.
    """
    if text is None:
        return None
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() and int(side) > 0 for side in sides):
        raise UserError(f"image_size '{text}' is not HEIGHTxWIDTH or one number, in pixels")
    return int(sides[0]), int(sides[-1])


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
