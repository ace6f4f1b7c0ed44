"""``tenfold list``: the jobs whose run directories are in a folder."""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Final

from tenfold.data.errors import JobError, UserError
from tenfold.data.storage.folder import is_url
from tenfold.data.storage.open_folder import open_folder
from tenfold.data.units import format_duration
from tenfold.launcher.cli.flags import Arguments, FlagValues
from tenfold.launcher.cli.jobs.platform_state import define_format_flag, find_job, platform_state
from tenfold.launcher.cli.jobs.run_status import RunStatus, run_status
from tenfold.launcher.job.run_dir import JOB_FILE, absolute_run_dir
from tenfold.launcher.report_page.run_files import read_run

USAGE: Final = "[FOLDER] [--flag=value …]"
DEFAULT_FOLDER: Final = "runs"

_COLUMNS: Final = ("run directory", "state", "workers", "step", "begun", "lasted")


def define_flags(fv: FlagValues) -> None:
    """Define the flags of list."""
    define_format_flag(fv)


def run(fv: FlagValues, args: Arguments) -> int:
    """Print a table of the jobs; return the exit status."""
    if len(args.positional) > 1 or args.program:
        raise UserError("give one folder of run directories: tenfold list FOLDER")
    parent = absolute_run_dir(args.positional[0] if args.positional else DEFAULT_FOLDER)
    found = list(find_runs(parent))
    if fv.format == "json":
        runs = [{**asdict(status), "step": status.step} for status in found]
        print(json.dumps(runs, indent=1, ensure_ascii=False))
        return 0
    if not found:
        print(f"there are no run directories in {parent}")
        return 0
    print("\n".join(_table([_COLUMNS, *map(_row, found)])))
    return 0


def find_runs(parent: str) -> Iterator[RunStatus]:
    """Yield the state of every run directory directly in the folder `parent`, oldest name first.

    Raises:
      JobError: the storage could not be read.
    """
    for name in open_folder(parent).folders():
        where = f"{parent}/{name}"
        folder = open_folder(where)
        job = find_job(folder)
        try:
            if folder.read(JOB_FILE) is not None:
                yield run_status(read_run(where), platform=platform_state(job))
            elif job is not None:
                yield RunStatus(
                    where, "submitted", "", 0, 0, None, None, (), platform=platform_state(job)
                )
        except (UserError, JobError) as error:  # one damaged file must not hide the other jobs
            yield RunStatus(where, f"unreadable ({error})", "", 0, 0, None, None, ())


def _row(status: RunStatus) -> tuple[str, ...]:
    begun, lasted = "-", "-"
    if status.begun is not None:
        begun = time.strftime("%Y-%m-%d %H:%M", time.localtime(status.begun))
    if status.seconds is not None:
        lasted = format_duration(status.seconds)
    where = status.run_dir if is_url(status.run_dir) else os.path.relpath(status.run_dir)
    step = "-" if status.step is None else f"{status.step:,}"
    return where, status.state, str(status.num_workers or "-"), step, begun, lasted


def _table(rows: list[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(map(str.ljust, row, widths)).rstrip()
