"""Hand a job to a platform that starts and supervises it by itself."""

from collections.abc import Sequence
from typing import Final

from absl.flags import Flag, MultiFlag

from tenfold.data.errors import UserError
from tenfold.launcher.backends.backend_registry import load_submitter
from tenfold.launcher.backends.base import Submission, Submitter
from tenfold.launcher.cli.flags import Arguments, FlagValues
from tenfold.launcher.cli.preflight import check_training
from tenfold.launcher.cli.prepare_job import prepare_far_job, prepare_job
from tenfold.launcher.cli.prepare_launch import options_of_backend
from tenfold.launcher.cli.write_flags import source_from_flags

# The rendered script contains them itself, or they mean nothing where it runs.
_NOT_PASSED_ON: Final = ("dry_run", "format", "run_dir", "flagfile")


def prepare_submission(fv: FlagValues, args: Arguments) -> tuple[Submitter, Submission] | None:
    """Return the platform and the job for it; None where the job is supervised from here.

    Raises:
      UserError: a flag, the program or the shards cannot be used.
    """
    submitter = load_submitter(fv.backend, options_of_backend(fv))
    if submitter is None:
        return None
    if fv.on_bad_record == "skip" and fv.shards:
        raise UserError(
            f"--on_bad_record=skip looks for broken records before the workers start, which "
            f"backend '{fv.backend}' cannot: find them with 'tenfold verify'"
        )
    if submitter.far:
        spec = prepare_far_job(fv, args)
    else:
        spec = prepare_job(fv, args, env={})
        if spec.train and not source_from_flags(fv):
            check_training(spec.train, num_workers=spec.num_workers)
    command_line = _command_line(fv, args, run_dir=spec.run_dir)
    return submitter, Submission(spec, command_line, fv.max_restarts)


def submit(submitter: Submitter, submission: Submission, *, dry_run: bool) -> str:
    """Hand the job over; return the text to print: with `dry_run` only what is rendered.

    Raises:
      UserError: the platform's tools are missing, or the job is not for this platform.
      JobError: the platform does not take it.
    """
    text = submitter.render(submission)
    return text if dry_run else submitter.submit(text, submission) + "\n"


def _command_line(fv: FlagValues, args: Arguments, *, run_dir: str) -> tuple[str, ...]:
    """Return the launch command that runs the same job, without the program's name."""
    given = [fv[name] for name in sorted(fv) if fv[name].present and name not in _NOT_PASSED_ON]
    own = [word for flag in given for word in _words(flag)]
    program = ["--", *args.program] if args.program else []
    return ("launch", *own, f"--run_dir={run_dir}", *program)


def _words(flag: Flag) -> Sequence[str]:
    if isinstance(flag, MultiFlag):
        return [f"--{flag.name}={value}" for value in flag.value]
    return [flag.serialize()]
