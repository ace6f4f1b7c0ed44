"""``tenfold status``: how far a job is, from its run directory and its platform."""

import json
import time
from dataclasses import asdict
from typing import Final

from tenfold.data.storage.open_folder import open_folder
from tenfold.launcher.cli.flags import Arguments, FlagValues
from tenfold.launcher.cli.jobs.platform_state import (
    define_format_flag,
    find_job,
    platform_state,
    run_dir_argument,
)
from tenfold.launcher.cli.jobs.run_status import run_status, status_text
from tenfold.launcher.job.run_dir import JOB_FILE
from tenfold.launcher.report_page.run_files import read_run

USAGE: Final = "RUN_DIR [--flag=value …]"


def define_flags(fv: FlagValues) -> None:
    """Define the flags of status."""
    define_format_flag(fv)


def run(fv: FlagValues, args: Arguments) -> int:
    """Print the state of a job; return the exit status."""
    where = run_dir_argument("status", args)
    folder = open_folder(where)
    job = find_job(folder)
    platform = platform_state(job)
    if job is not None and folder.read(JOB_FILE) is None:
        waiting = {"run_dir": where, "state": "submitted", "platform": platform}
        text = f"submitted, not begun\n  platform: {platform}\nrun directory: {where}"
        print(json.dumps(waiting, indent=1) if fv.format == "json" else text)
        return 0
    status = run_status(read_run(where), platform=platform)
    if fv.format == "json":
        print(json.dumps({**asdict(status), "step": status.step}, indent=1, ensure_ascii=False))
    else:
        print(status_text(status, now=time.time()), end="")
    return 0
