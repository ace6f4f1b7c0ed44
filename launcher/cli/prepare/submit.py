"""Hand a job to a platform that starts and supervises it by itself."""

import os
from collections.abc import Sequence
from typing import Final

from absl.flags import Flag, MultiFlag

from tenfold.data.errors import JobError, UserError
from tenfold.data.storage.folder import is_url
from tenfold.data.storage.open_folder import open_folder
from tenfold.launcher.backends.backend_registry import backend_options, load_submitter
from tenfold.launcher.backends.base import Submission, Submitted, Submitter
from tenfold.launcher.cli.flags import Arguments, FlagValues
from tenfold.launcher.cli.prepare.prepare_job import prepare_far_job, prepare_job
from tenfold.launcher.cli.prepare.prepare_launch import options_of_backend
from tenfold.launcher.cli.write_flags import source_from_flags
from tenfold.launcher.job.run_dir import SUBMISSION_FILE

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
        _refuse_sizes(fv)
        spec = prepare_far_job(fv, args)
    else:
        spec = prepare_job(fv, args, env={})
        if spec.train and not source_from_flags(fv):
            from tenfold.launcher.cli.prepare.preflight import check_training

            check_training(spec.train, num_workers=spec.num_workers)
    command_line = _command_line(fv, args, run_dir=spec.run_dir)
    member = _member_command(fv, args, run_dir=spec.run_dir)
    submission = Submission(
        spec,
        command_line,
        fv.max_restarts,
        member,
        spare_hosts=fv.spare_hosts,
        outlives_hosts=_can_lose_a_host(fv),
    )
    return submitter, submission


def _refuse_sizes(fv: FlagValues) -> None:
    """Refuse the flags for hosts that come and go where a platform replaces lost workers.

    Raises:
      UserError: one of them is given.
    """
    for name in ("min_workers", "spare_hosts", "regrow_after"):
        if fv[name].present:
            raise UserError(
                f"--{name} is for hosts that a launch supervises; on --backend={fv.backend} the "
                "platform replaces a lost worker: leave it out, and to change the number of "
                "workers, 'tenfold cancel' the job and launch it again with another --num_workers"
            )


def _can_lose_a_host(fv: FlagValues) -> bool:
    fewer = fv.min_workers is not None and fv.min_workers < fv.num_workers
    return bool(fewer or fv.spare_hosts)


def submit(submitter: Submitter, submission: Submission, *, dry_run: bool) -> str:
    """Hand the job over; return the text to print: with `dry_run` only what is rendered.

    Raises:
      UserError: the platform's tools are missing, or the job is not for this platform.
      JobError: the platform does not take it.
    """
    text = submitter.render(submission)
    if dry_run:
        return text
    answer = submitter.submit(text, submission)
    if isinstance(answer, str):
        return answer + "\n"
    return f"{answer.message}\n{_remember(answer, submission)}"


def _remember(answer: Submitted, submission: Submission) -> str:
    """Note the job in the run directory, for `status` and `cancel`; return what they would say.

    A run directory on a volume of the platform cannot be seen from here.
    """
    where = submission.spec.run_dir
    if not is_url(where) and not os.path.isdir(os.path.dirname(where)):
        return ""
    try:
        open_folder(where).write(SUBMISSION_FILE, answer.job.to_json())
    except (OSError, JobError, UserError) as error:
        # The platform has taken the job: this must not look like a failed submission.
        return f"'tenfold status' will not find the job: {error}\n"
    return ""


def _command_line(fv: FlagValues, args: Arguments, *, run_dir: str) -> tuple[str, ...]:
    """Return the launch command that runs the same job, without the program's name."""
    given = [fv[name] for name in sorted(fv) if fv[name].present and name not in _NOT_PASSED_ON]
    own = [word for flag in given for word in flag_words(flag)]
    program = ["--", *args.program] if args.program else []
    return ("launch", *own, f"--run_dir={run_dir}", *program)


def _member_command(fv: FlagValues, args: Arguments, *, run_dir: str) -> tuple[str, ...]:
    """Return the launch command of one worker, which joins the others."""
    options = {option.name for own in backend_options(fv.backend).values() for option in own}
    left_out = {*_NOT_PASSED_ON, "backend", "num_workers", "max_restarts", *options}
    given = [fv[name] for name in sorted(fv) if fv[name].present and name not in left_out]
    own = [word for flag in given for word in flag_words(flag)]
    number = f"--num_workers={fv.num_workers}"
    program = ["--", *args.program] if args.program else []
    return ("launch", "--backend=join", number, *own, f"--run_dir={run_dir}", *program)


def flag_words(flag: Flag) -> Sequence[str]:
    """Return the words of a command line that give a flag its value."""
    if isinstance(flag, MultiFlag):
        return [f"--{flag.name}={value}" for value in flag.value]
    return [flag.serialize()]
