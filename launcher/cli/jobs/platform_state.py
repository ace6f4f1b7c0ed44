"""What a platform knows of a job that was handed over to it, for `status` and `cancel`."""

import json

from absl import flags

from tenfold.data.errors import JobError, UserError
from tenfold.data.format.json_fields import from_json_fields
from tenfold.data.storage.folder import Folder
from tenfold.launcher.backends.backend_registry import load_job_control
from tenfold.launcher.cli.flags import Arguments, FlagValues
from tenfold.launcher.job.job_spec import SubmittedJob
from tenfold.launcher.job.run_dir import SUBMISSION_FILE, absolute_run_dir


def run_dir_argument(command: str, args: Arguments) -> str:
    """Return the run directory that a command was given.

    Raises:
      UserError: it is missing, or there are more arguments.
    """
    if len(args.positional) != 1 or args.program:
        raise UserError(f"give one run directory: tenfold {command} RUN_DIR")
    return absolute_run_dir(args.positional[0])


def define_format_flag(fv: FlagValues) -> None:
    """Define --format."""
    flags.DEFINE_enum(
        "format", "text", ["text", "json"], "how the result is printed", flag_values=fv
    )


def find_job(folder: Folder) -> SubmittedJob | None:
    """Return how a platform knows the job of a run directory; None if none does."""
    try:
        return from_json_fields(SubmittedJob, json.loads(folder.read(SUBMISSION_FILE) or b""))
    except ValueError:
        return None


def platform_state(job: SubmittedJob | None) -> str:
    """Return what the platform says of a job, in words; "" without a platform."""
    if job is None:
        return ""
    try:
        state: str = load_job_control(job.backend).job_state(job)
    except (UserError, JobError) as error:
        state = f"unknown ({error})"
    return f"{job.backend} job {job.job}: {state}"
