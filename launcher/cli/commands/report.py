"""`tenfold report`: a run, finished or not, as one HTML page."""

import sys
import time
from pathlib import Path
from typing import Final

from absl import flags

from tenfold.data.errors import UserError
from tenfold.data.storage.folder import is_url
from tenfold.data.storage.open_folder import save_file
from tenfold.launcher.cli.flags import Arguments, FlagValues
from tenfold.launcher.job.run_dir import REPORT_FILE, absolute_run_dir
from tenfold.launcher.report_page.page import render_page
from tenfold.launcher.report_page.run_files import RUNNING, read_run

USAGE: Final = "RUN_DIR [--flag=value …]"

# A long run takes long to read: following it must not take more than this share of a core.
_MAX_SHARE: Final = 0.2
_FOLLOWING: Final = "the job is running: following it until it ends (Ctrl-C to stop)"


def define_flags(fv: FlagValues) -> None:
    """Defines the flags of `report`."""
    flags.DEFINE_string(
        "output",
        "",
        "file to write (default: report.html in RUN_DIR; of one that is a URL, "
        "NAME-report.html here)",
        flag_values=fv,
    )
    flags.DEFINE_bool(
        "follow", True, "while the job runs, write the page anew; it reloads itself",
        flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_float(
        "interval", 5.0, "seconds between two writes of a running job's page",
        lower_bound=0.5, flag_values=fv,
    )  # fmt: skip


def run(fv: FlagValues, args: Arguments) -> int:
    """Writes the page; while the job runs, again and again; returns the exit status."""
    if len(args.positional) != 1 or args.program:
        raise UserError("name one run directory: tenfold report RUN_DIR")
    run_dir = absolute_run_dir(args.positional[0])
    output = fv.output or default_output(args.positional[0])
    if fv.follow:
        follow(run_dir, output, interval_s=fv.interval)
    else:
        write_page(run_dir, output, refresh_s=None)
        print(output, flush=True)
    return 0


def default_output(run_dir: str) -> str:
    """Returns where the page of a run directory goes if nothing else is said."""
    if is_url(run_dir):
        return f"{run_dir.rstrip('/').rpartition('/')[2]}-{REPORT_FILE}"
    return str(Path(run_dir, REPORT_FILE))


def write_page(run_dir: str, output: str, *, refresh_s: float | None) -> str:
    """Writes the page whole; returns the run's state. The page of a running job loads itself
    anew every `refresh_s` seconds.

    Raises:
      UserError: `run_dir` is not a run directory, or `output` cannot be written.
      JobError: the storage could not be read or written.
    """
    run_files = read_run(run_dir)
    page = render_page(run_files, refresh_s=refresh_s)
    try:
        save_file(output, page.encode())
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"cannot write '{output}' ({reason}): give another --output") from error
    return run_files.state


def follow(run_dir: str, output: str, *, interval_s: float) -> None:
    """Writes the page, and again every `interval_s` seconds while the job is running."""
    try:
        state = write_page(run_dir, output, refresh_s=interval_s)
        print(output, flush=True)
        if state == RUNNING:
            print(_FOLLOWING, file=sys.stderr)
        pause_s = interval_s
        while state == RUNNING:
            time.sleep(pause_s)
            began = time.monotonic()
            state = write_page(run_dir, output, refresh_s=interval_s)
            pause_s = max(interval_s, (time.monotonic() - began) / _MAX_SHARE)
    except KeyboardInterrupt:
        write_page(run_dir, output, refresh_s=None)  # nobody renews it from now on
        raise
