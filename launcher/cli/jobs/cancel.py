"""``tenfold cancel``: asks a job to save a checkpoint and stop."""

import time
from typing import Final

from absl import flags

from tenfold.data.errors import JobError, UserError
from tenfold.data.storage.folder import is_url
from tenfold.data.storage.open_folder import open_folder
from tenfold.launcher.backends.backend_registry import load_job_control
from tenfold.launcher.cli.flags import Arguments, FlagValues
from tenfold.launcher.cli.jobs.platform_state import find_job, run_dir_argument
from tenfold.launcher.job.remote_run_dir import is_held
from tenfold.launcher.job.run_dir import CANCEL_FILE
from tenfold.launcher.report_page.run_files import read_result

USAGE: Final = "RUN_DIR [--flag=value …]"


def define_flags(fv: FlagValues) -> None:
    """Define the flags of cancel."""
    flags.DEFINE_float(
        "wait", 60.0, "seconds to wait for the end of the job; 0: only ask", lower_bound=0.0,
        flag_values=fv,
    )  # fmt: skip


def run(fv: FlagValues, args: Arguments) -> int:
    """Ask the job to stop, and wait until it has; return the exit status."""
    where = run_dir_argument("cancel", args)
    folder = open_folder(where)
    job, is_running = find_job(folder), is_held(where)
    done = load_job_control(job.backend).cancel_job(job, running=is_running) if job else ""
    if done:
        print(done, flush=True)
    elif is_running:
        folder.write(CANCEL_FILE, b"{}\n")
        print("asked the launcher to stop", flush=True)
    else:
        raise UserError(f"no launch is running in {where}: 'tenfold status' shows its state")
    return _wait(where, fv.wait)


def _wait(where: str, seconds: float) -> int:
    if not is_held(where):
        return 0
    until = time.monotonic() + seconds
    while is_held(where):
        if time.monotonic() >= until:
            if seconds:
                raise JobError(
                    f"the job still runs after {seconds:g} s: it may be saving; 'tenfold status' "
                    "shows its phase"
                )
            return 0
        time.sleep(5.0 if is_url(where) else 0.2)
    result = read_result(open_folder(where))
    print(f"the job has ended: {result.state if result else 'without a result'}")
    return 0
