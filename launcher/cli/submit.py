"""Handing a job to a platform that starts and supervises it by itself."""

from collections.abc import Sequence

from absl.flags import Flag, MultiFlag

from tenfold.launcher.backends.base import Submission, Submitter
from tenfold.launcher.cli import prepare_launch
from tenfold.launcher.cli.flags import Arguments, FlagValues

# Said by the rendered script itself, or of no use where it runs.
_NOT_PASSED_ON = ("dry_run", "format", "run_dir", "flagfile")


def submit(submitter: Submitter, fv: FlagValues, args: Arguments) -> int:
    """Renders the job, and hands it over unless --dry_run is given; returns the exit status.

    Raises:
      UserError: something of it is wrong.
      JobError: the platform does not take it.
    """
    submission = make_submission(fv, args, far=submitter.far)
    text = submitter.render(submission)
    print(text if fv.dry_run else submitter.submit(text, submission) + "\n", end="")
    return 0


def make_submission(fv: FlagValues, args: Arguments, *, far: bool) -> Submission:
    """Returns what is handed over. With `far` paths are those of the workers' machines, and
    nothing can be checked here.

    Raises:
      UserError: something of it is wrong.
    """
    if far:
        spec = prepare_launch.far_job(fv, args)
    else:
        spec = prepare_launch.prepare_job(fv, args, env={}, shards_exist=not fv.source)[0]
    return Submission(spec, command_line(fv, args, run_dir=spec.run_dir), fv.max_restarts)


def command_line(fv: FlagValues, args: Arguments, *, run_dir: str) -> tuple[str, ...]:
    """Returns the launch command that runs the same job, without the program's name."""
    given = [fv[name] for name in sorted(fv) if fv[name].present and name not in _NOT_PASSED_ON]
    own = [word for flag in given for word in _words(flag)]
    program = ["--", *args.program] if args.program else []
    return ("launch", *own, f"--run_dir={run_dir}", *program)


def _words(flag: Flag) -> Sequence[str]:
    if isinstance(flag, MultiFlag):
        return [f"--{flag.name}={value}" for value in flag.value]
    return [flag.serialize()]
