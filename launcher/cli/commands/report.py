"""``tenfold report``: one HTML page on a finished or running job."""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from absl import flags

from tenfold.data.errors import UserError
from tenfold.data.storage.folder import is_url
from tenfold.data.storage.open_folder import save_file
from tenfold.launcher.cli.flags import Arguments, FlagValues
from tenfold.launcher.job.run_dir import REPORT_FILE, absolute_run_dir
from tenfold.launcher.report_page.banner import judge_run
from tenfold.launcher.report_page.page import render_comparison, render_page
from tenfold.launcher.report_page.run_document import run_document
from tenfold.launcher.report_page.run_files import RUNNING, RunFiles, read_run
from tenfold.launcher.report_page.sections.sections_compare import MAX_RUNS, differing_flags
from tenfold.launcher.report_page.sections.sections_outcome import run_values

USAGE: Final = "RUN_DIR [--flag=value …]\n       tenfold report RUN_DIR RUN_DIR … [--flag=value …]"
COMPARISON_FILE: Final = "comparison.html"

# The page of a long run takes long to make: following a job may take this share of a core.
_MAX_CPU_SHARE: Final = 0.2
_FOLLOWING: Final = "the job is running: updating the page until it ends (Ctrl-C to stop)"


def define_flags(fv: FlagValues) -> None:
    """Define the flags of report."""
    flags.DEFINE_string(
        "output",
        "",
        "HTML file to write (default: RUN_DIR/report.html; if RUN_DIR is a URL, "
        "NAME-report.html in the current folder; of several runs comparison.html there)",
        flag_values=fv,
    )
    flags.DEFINE_bool(
        "follow", True, "while the job runs, update the page, which reloads itself",
        flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_float(
        "interval", 5.0, "seconds between two updates of a running job's page",
        lower_bound=0.5, flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_enum(
        "format", "html", ("html", "json"),
        "html writes the page; json prints the verdict, the goodput and the epochs",
        flag_values=fv,
    )  # fmt: skip


def run(fv: FlagValues, args: Arguments) -> int:
    """Write the page, repeatedly while the job runs; return the exit status."""
    if not args.positional or args.program:
        raise UserError("give one run directory, or several to compare: tenfold report RUN_DIR …")
    if len(args.positional) > MAX_RUNS:
        count = len(args.positional)
        raise UserError(f"{count} runs are too many to compare: give at most {MAX_RUNS}")
    if fv.format == "json" or len(args.positional) > 1:
        return _report_once([read_run(absolute_run_dir(where)) for where in args.positional], fv)
    run_dir = absolute_run_dir(args.positional[0])
    output = fv.output or default_output(args.positional[0])
    if fv.follow:
        follow(run_dir, output, interval_s=fv.interval)
    else:
        write_page(run_dir, output, refresh_s=None)
        print(output, flush=True)
    return 0


def _report_once(runs: Sequence[RunFiles], fv: FlagValues) -> int:
    """Print runs as JSON, or write the page that compares them."""
    if fv.format == "json":
        documents = [run_document(run, judge_run(run_values(run))) for run in runs]
        shown = {"runs": documents, "differences": differing_flags(runs)}
        print(json.dumps(shown if len(runs) > 1 else documents[0], indent=1, ensure_ascii=False))
        return 0
    output = fv.output or COMPARISON_FILE
    _save(render_comparison(runs), output)
    print(output, flush=True)
    return 0


def _save(page: str, output: str) -> None:
    try:
        save_file(output, page.encode())
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"cannot write '{output}' ({reason}): give another --output") from error


def default_output(run_dir: str) -> str:
    """Return the path of a run directory's page if --output is not given."""
    if is_url(run_dir):
        return f"{run_dir.rstrip('/').rpartition('/')[2]}-{REPORT_FILE}"
    return str(Path(run_dir, REPORT_FILE))


def write_page(run_dir: str, output: str, *, refresh_s: float | None) -> str:
    """Write the page of a run directory; return the state of the run.

    Args:
      run_dir: the run directory, a path or a URL.
      output: the HTML file to write, a path or a URL.
      refresh_s: seconds after which the page of a running job reloads itself; None: never.

    Raises:
      UserError: `run_dir` is not a run directory, or `output` cannot be written.
      JobError: the storage could not be read or written.
    """
    run_files = read_run(run_dir)
    _save(render_page(run_files, refresh_s=refresh_s), output)
    return run_files.state


def follow(run_dir: str, output: str, *, interval_s: float) -> None:
    """Write the page, and again every `interval_s` seconds while the job runs.

    Args:
      run_dir: the run directory, a path or a URL.
      output: the HTML file to write, a path or a URL.
      interval_s: seconds between two updates; longer if making the page takes long.
    """
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
            pause_s = max(interval_s, (time.monotonic() - began) / _MAX_CPU_SHARE)
    except KeyboardInterrupt:
        write_page(run_dir, output, refresh_s=None)  # the page must not reload itself any more
        raise
