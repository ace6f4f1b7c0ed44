"""The Python API: `tenfold.plan`, `tenfold.write`, `tenfold.launch` and `tenfold.Run`.

Every flag of a command is a keyword of the same name. Sizes may be texts (``"10GB"``). A list
stands for a repeated flag or for comma-separated values. Results display as text and as HTML.
"""

import html
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from absl.flags import MultiFlag

from tenfold.data.errors import JobError, UserError
from tenfold.launcher.cli.flags import FlagValues, parse_flags
from tenfold.launcher.worker.python_argv import module_argv

if TYPE_CHECKING:
    from tenfold.data.format.manifest import Manifest
    from tenfold.data.planning.layout import LayoutPolicy, ShardLayout
    from tenfold.data.writing.write_shards import WriteResult
    from tenfold.launcher.cli.commands.plan import SourcePlan
    from tenfold.launcher.job.job_result import JobResult
    from tenfold.models.metrics_line import EpochMetrics, MetricsLine, StepMetrics

_MAX_LAST_LINES: Final = 20
_EXIT_USAGE: Final = 2


# --- planning ---


@dataclass(frozen=True)
class Plan:
    """The result of `plan`.

    Attributes:
      planned: the layout of the whole data set and, if there are several, of each split.
      policy: the limits that the layouts keep.
    """

    planned: "SourcePlan"
    policy: "LayoutPolicy"

    @property
    def layout(self) -> "ShardLayout":
        """Numbers and sizes of the shards, over all splits."""
        return self.planned.whole

    def __repr__(self) -> str:
        from tenfold.launcher.cli.commands.plan import to_text

        return to_text(self.planned)

    def _repr_html_(self) -> str:
        from tenfold.launcher.cli.commands.plan import rows_of

        return _html_table(rows_of(self.planned))

    def plot(self, path: str) -> None:
        """Save a plot of the layout.

        Args:
          path: a file name ending in .svg or .png.


        Raises:
          UserError: matplotlib is missing, or the file cannot be written.
        """
        from tenfold.launcher.display.plot_layout import plot_layout
        from tenfold.launcher.display.plots import check_plot_path

        check_plot_path(path)
        plot_layout(self.layout, self.policy, path)


def plan(source: Any = "", **flags: Any) -> Plan:
    """Plans the shards of a data set.

    Args:
      source: a path, URL or name as for ``--source``, a `tf.data.Dataset`, or an iterable of dicts
        of features; or a dict with one of these for each split. Not needed with
        ``dataset_size="10GB"``.
      **flags: flags of ``tenfold plan``.

    Returns:
      The plan, which displays as a table.

    Raises:
      UserError: a flag has a wrong value, or the source cannot be read.
    """
    from tenfold.launcher.cli.commands import plan as command
    from tenfold.launcher.cli.write_flags import policy_from_flags

    values = _flag_values(command, flags, source=source)
    return Plan(command.plan_from_flags(values), policy_from_flags(values))


# --- writing ---


@dataclass(frozen=True)
class Written:
    """The result of `write`.

    Attributes:
      output: the folder of the shards, for ``launch(shards=written.output)``.
      result: the counts of the write.
      seconds: how long it took.
    """

    output: str
    result: "WriteResult"
    seconds: float

    @property
    def manifest(self) -> "Manifest | None":
        """The manifest; None after a dry run, or while other writers still write shards."""
        return self.result.manifest

    def __repr__(self) -> str:
        from tenfold.launcher.cli.commands.write import summary

        return summary(self.result, self.output, self.seconds)

    def _repr_html_(self) -> str:
        from tenfold.data.units import format_size, plural

        rows = [("written", line) for line in repr(self).splitlines()]
        for split in self.manifest.splits if self.manifest else ():
            records, size = plural(split.num_records, "record"), format_size(split.num_bytes)
            rows.append((split.name, f"{records}, {size}, {plural(len(split.shards), 'shard')}"))
        return _html_table(rows)


def write(source: Any, output: str, **flags: Any) -> Written:
    """Write a data set as shards and a manifest.

    Args:
      source: a path, URL or name as for ``--source``, a `tf.data.Dataset`, or an iterable of dicts
        of features; or a dict with one of these for each split.
      output: the folder for the shards: a path or URL.
      **flags: flags of ``tenfold write``.

    Returns:
      The counts of the write and the manifest.

    Raises:
      UserError: a flag has a wrong value, or the source or output cannot be used.
      JobError: a record is damaged, or the storage fails.
    """
    from tenfold.launcher.cli.commands import write as command
    from tenfold.launcher.cli.write_flags import write_from_flags

    began = time.monotonic()
    values = _flag_values(command, {**flags, "output": str(output)}, source=source)
    names = ("writer_index", "num_writers", "engine", "dry_run")
    result = write_from_flags(values, **{name: values[name].value for name in names})
    return Written(str(output), result, time.monotonic() - began)


# --- launching ---


class Run:
    """A run directory, of a job that is running or has ended. Its files are read on use."""

    def __init__(self, path: str | Path) -> None:
        """Open the run directory of a launch.

        Args:
          path: a path, which becomes a `Path`, or a URL (``gs://…``), which stays a text.
        """
        self.path: Path | str = str(path) if "://" in str(path) else Path(path)

    @property
    def result(self) -> "JobResult | None":
        """How the job ended; None while it has no result.

        Raises:
          UserError: result.json is damaged.
        """
        from tenfold.data.storage.open_folder import open_folder
        from tenfold.launcher.report_page.run_files import read_result

        return read_result(open_folder(str(self.path)))

    @property
    def state(self) -> str:
        """``succeeded``, ``failed``, ``cancelled``, ``running`` or ``ended without a result``."""
        from tenfold.launcher.report_page.run_files import state_of

        return state_of(self.path, self.result)

    @property
    def epochs(self) -> "list[EpochMetrics]":
        """The epochs in metrics.jsonl: loss, metrics, receipt, … of each."""
        from tenfold.models.metrics_line import EpochMetrics

        return [line for line in self._metrics() if isinstance(line, EpochMetrics)]

    @property
    def steps(self) -> "list[StepMetrics]":
        """The steps in metrics.jsonl: epoch, step, loss, metrics, … of each."""
        from tenfold.models.metrics_line import StepMetrics

        return [line for line in self._metrics() if isinstance(line, StepMetrics)]

    def _metrics(self) -> "list[MetricsLine]":
        from tenfold.data.storage.open_folder import open_folder
        from tenfold.launcher.report_page.run_files import read_metrics

        return read_metrics(open_folder(str(self.path)))[0]

    def report(self) -> Path:
        """Write the report, one HTML page.

        Returns:
          Its path: in the run directory, or in the current folder where the run is at a URL.

        Raises:
          UserError: this is not a run directory.
        """
        from tenfold.launcher.cli.commands.report import default_output, write_page

        output = default_output(str(self.path))
        write_page(str(self.path), output, refresh_s=None)
        return Path(output)

    def __repr__(self) -> str:
        from tenfold.launcher.display.summary import result_text

        result = self.result
        return result_text(result, self.path).rstrip() if result else f"{self.state}: {self.path}"

    def _repr_html_(self) -> str:
        from tenfold.launcher.report_page.page import render_page
        from tenfold.launcher.report_page.run_files import read_run

        page = html.escape(render_page(read_run(self.path)))
        # A sandboxed frame keeps the styles and contents of the page out of the notebook.
        return (
            f'<iframe sandbox srcdoc="{page}" title="report on {html.escape(str(self.path))}" '
            'style="width: 100%; height: 640px; border: 1px solid #8886; border-radius: 8px">'
            "</iframe>"
        )


def launch(*program: str, check: bool = True, **flags: Any) -> Run:
    """Run a job to its end, and print the output of the command meanwhile.

    An interrupt stops the workers as Ctrl-C does (a second one at once). KeyboardInterrupt follows
    when they have ended.

    Args:
      *program: your own program and its arguments; without one, the built-in trainer runs.
      check: raise JobError where the job fails; False returns its `Run` instead.
      **flags: flags of ``tenfold launch``.

    Returns:
      The run.

    Raises:
      UserError: a flag has a wrong value.
      JobError: the job failed.
    """
    from tenfold.launcher.cli.commands import launch as command
    from tenfold.launcher.job.run_dir import absolute_run_dir, default_run_dir

    if flags.get("dry_run"):
        raise UserError("dry_run is for the command line: run 'tenfold launch --dry_run …'")
    name = str(flags.get("model", "job")) if not program else Path(program[0]).stem
    run_dir = absolute_run_dir(str(flags.pop("run_dir", None) or default_run_dir(name)))
    words = _command_words(_defined(command), {**flags, "run_dir": run_dir})
    argv = ["launch", *words, *(("--", *program) if program else ())]
    status, last = _run_showing(module_argv("tenfold", argv))
    if status == 0 or (status == 1 and not check and Run(run_dir).result):
        return Run(run_dir)
    if status == _EXIT_USAGE:
        raise UserError(_message(last))
    if Run(run_dir).result is None:
        raise JobError(_message(last))
    raise JobError(f"the job did not succeed: {Run(run_dir)}")


def _message(lines: Sequence[str]) -> str:
    """Return the last error message in the output of the command, else its last line."""
    messages = [line for line in lines if line.startswith("tenfold: ")] or list(lines[-1:])
    return messages[-1].removeprefix("tenfold: ") if messages else "tenfold launch printed nothing"


def _run_showing(argv: Sequence[str]) -> tuple[int, list[str]]:
    """Run a program and print its output; return its exit status and last lines."""
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        # A notebook's interrupt goes to its whole process group. In a session of its own the
        # launcher gets one SIGINT only: the one that is sent below.
        start_new_session=True,
    )
    assert process.stdout is not None
    lines: deque[str] = deque(maxlen=_MAX_LAST_LINES)
    interrupted = False
    while True:
        try:
            for line in process.stdout:
                print(line, end="", file=sys.stderr, flush=True)
                lines.append(line.rstrip("\n"))
            process.wait()
            break
        except KeyboardInterrupt:
            interrupted = True
            process.send_signal(signal.SIGINT)
    if interrupted:
        raise KeyboardInterrupt
    return process.returncode, list(lines)


# --- flags ---


def _defined(command: ModuleType) -> FlagValues:
    values = FlagValues()
    command.define_flags(values)
    return values


def _flag_values(command: ModuleType, flags: dict[str, Any], *, source: Any) -> FlagValues:
    """Return the flags of a command, set from keywords."""
    values = _defined(command)
    parse_flags(values, _command_words(values, flags))
    values["source"].value = os.fspath(source) if isinstance(source, os.PathLike) else source
    return values


def _command_words(defined: FlagValues, flags: dict[str, Any]) -> list[str]:
    """Return keywords as the words of a command line."""
    words: list[str] = []
    for name, value in flags.items():
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no{name}")
        elif not isinstance(value, list | tuple):
            words += [] if value is None else [f"--{name}={value}"]
        elif name in defined and isinstance(defined[name], MultiFlag):
            words += [f"--{name}={item}" for item in value]
        else:
            words.append(f"--{name}={','.join(map(str, value))}")
    return words


def _html_table(rows: Sequence[tuple[str, str]]) -> str:
    from tenfold.launcher.report_page.markup import tag

    left = "text-align: left"
    lines = [
        tag("tr", tag("th", name, style=left), tag("td", text, style=left)) for name, text in rows
    ]
    return tag("table", tag("tbody", *lines))
