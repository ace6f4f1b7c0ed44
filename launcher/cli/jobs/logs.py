"""``tenfold logs``: the output of a job's workers, from its run directory."""

import re
import sys
import time
from typing import Final

from absl import flags

from tenfold.data.errors import UserError
from tenfold.data.storage.folder import Folder, is_url
from tenfold.data.storage.open_folder import open_folder
from tenfold.launcher.cli.flags import Arguments, FlagValues
from tenfold.launcher.cli.jobs.platform_state import run_dir_argument
from tenfold.launcher.job.remote_run_dir import is_held
from tenfold.launcher.job.run_dir import LOGS_FOLDER, worker_log_name

USAGE: Final = "RUN_DIR [--flag=value …]"

_NAME: Final = re.compile(re.escape(worker_log_name("#")).replace(r"\#", r"(\d+)"))
LOCAL_POLL_S: Final = 0.5
REMOTE_POLL_S: Final = 5.0


def define_flags(fv: FlagValues) -> None:
    """Define the flags of logs."""
    flags.DEFINE_integer(
        "worker", None, "the worker whose log to print (default: all)", lower_bound=0,
        flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_integer(
        "lines", None, "the last so many lines of each log (default: all)", lower_bound=0,
        flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_bool(
        "follow", False, "print what is added until the job ends (Ctrl-C to stop)", flag_values=fv
    )


def run(fv: FlagValues, args: Arguments) -> int:
    """Print the logs; return the exit status."""
    where = run_dir_argument("logs", args)
    folder = open_folder(where)
    workers = find_logs(folder)
    if fv.worker is not None and fv.worker not in workers and not fv.follow:
        there = ", ".join(map(str, workers)) or "none"
        raise UserError(f"there is no log of worker {fv.worker} in {where}, only of {there}")
    if not workers and not fv.follow:
        raise UserError(f"there are no logs in {where}: give the --run_dir of a launch")
    printer = LogPrinter(folder, fv.worker, fv.lines)
    printer.print_new()
    while fv.follow and is_held(where):
        time.sleep(REMOTE_POLL_S if is_url(where) else LOCAL_POLL_S)
        printer.print_new()
    if fv.follow:
        printer.print_new()  # what came between the last look and the end of the job
    printer.print_rest()
    return 0


def find_logs(folder: Folder) -> list[int]:
    """Return the workers that have a log in a run directory, sorted."""
    found = (_NAME.fullmatch(name) for name in folder.sizes(LOGS_FOLDER))
    return sorted(int(match[1]) for match in found if match)


class LogPrinter:
    """Prints whole lines of the logs, each once, with the worker where there are several."""

    def __init__(self, folder: Folder, worker: int | None, lines: int | None) -> None:
        """Prepare to print.

        Args:
          folder: the run directory.
          worker: the worker whose log to print; None prints all.
          lines: the last so many lines of what each log holds now; None prints all.
        """
        self._folder = folder
        self._worker = worker
        self._lines = lines
        self._offsets: dict[int, int] = {}
        self._rests: dict[int, bytes] = {}

    def print_new(self) -> None:
        """Print the lines that were added since the last call."""
        workers = find_logs(self._folder) if self._worker is None else [self._worker]
        for worker in workers:
            name = f"{LOGS_FOLDER}/{worker_log_name(worker)}"
            entry = self._folder.entry(name)
            offset = self._offsets.get(worker, 0)
            if entry is None or entry.bytes <= offset:
                continue
            data = self._folder.read_range(name, offset, entry.bytes - offset)
            self._offsets[worker] = offset + len(data)
            *lines, self._rests[worker] = (self._rests.get(worker, b"") + data).split(b"\n")
            if offset == 0 and self._lines is not None:
                lines = lines[max(0, len(lines) - self._lines) :]
            for line in lines:
                self._print(worker, line, len(workers))
        sys.stdout.flush()

    def print_rest(self) -> None:
        """Print last lines that have no end."""
        for worker, rest in sorted(self._rests.items()):
            if rest:
                self._print(worker, rest, len(self._rests))
        self._rests.clear()
        sys.stdout.flush()

    def _print(self, worker: int, line: bytes, count: int) -> None:
        prefix = f"[worker {worker}] " if count > 1 else ""
        print(prefix + line.decode(errors="replace"))
