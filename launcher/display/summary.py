"""The summary of a finished job, as printed at the end of a launch."""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tenfold.data.storage.open_folder import open_folder
from tenfold.data.units import format_duration
from tenfold.launcher.job.job_result import Failure, JobResult, Recovery, SizeChange
from tenfold.launcher.job.run_dir import LOGS_FOLDER, MODEL_FILE

TRACEBACK_TAIL = 25


def result_text(result: JobResult, run_dir: str | Path) -> str:
    """Return the text that is printed at the end of a launch, with its newline.

    Args:
      result: how the job ended.
      run_dir: the run directory, a path or a URL.
    """
    lines = [f"{result.state} in {format_duration(result.seconds)}"]
    lines += [f"  {name}: {value}" for name, value in _figures(result.final)]
    if result.goodput is not None:
        lines.append(f"  goodput: {result.goodput.sentence()}")
        lines += filter(None, [result.goodput.slow_sentence()])
    lines += [_recovery(number, recovery) for number, recovery in enumerate(result.recoveries, 1)]
    lines += [_resize(number, change) for number, change in enumerate(result.resizes, 1)]
    if result.first_failure is not None:
        lines += _failure_lines(result.first_failure)
        lines += [_consequence(failure) for failure in result.consequences]
    if result.reason:
        lines.append(f"not restarted: {result.reason}")
    lines += result.notes
    lines.append(f"run directory: {run_dir}")
    if MODEL_FILE in open_folder(str(run_dir)).sizes():
        lines.append(f"model: {run_dir}/{MODEL_FILE}")
    lines.append(f"logs: {run_dir}/{LOGS_FOLDER}")
    return "\n".join(lines) + "\n"


def _recovery(number: int, recovery: Recovery) -> str:
    failure = recovery.failure
    cause = "was preempted" if recovery.preempted else failure.error.split("\n", 1)[0][:120]
    step = f" at step {failure.step}" if failure.step is not None else ""
    took = ""
    if recovery.seconds is not None:
        took = f"; next step after {format_duration(recovery.seconds)}"
    return f"restart {number}: worker {failure.worker}{step}: {cause}{took}"


def _resize(number: int, change: SizeChange) -> str:
    when = time.strftime("%H:%M:%S", time.localtime(change.time))
    step = f", after step {change.step}" if change.step is not None else ""
    took = ""
    if change.seconds is not None:
        took = f"; next step after {format_duration(change.seconds)}"
    return f"change {number} at {when}{step}: {change.sentence}{took}"


def _figures(final: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield names and formatted values; nested groups of figures are flattened."""
    for name, value in final.items():
        if name in ("model", "receipt"):
            continue  # the model's path has a line of its own, a receipt a sentence
        if isinstance(value, dict):
            yield from _figures(value)
        else:
            yield name.replace("_", " "), _shown(value)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _failure_lines(failure: Failure) -> list[str]:
    when = time.strftime("%H:%M:%S", time.localtime(failure.time))
    where = f" in phase {failure.phase.replace('_', ' ')}" if failure.phase else ""
    step = f" at step {failure.step}" if failure.step is not None else ""
    code = f" (exit code {failure.exit_code})" if failure.exit_code is not None else ""
    lines = [f"first failure: worker {failure.worker} at {when}{where}{step}{code}"]
    lines.append(f"  {failure.error}")
    shown = failure.traceback.splitlines()[-TRACEBACK_TAIL:]
    return lines + [f"  | {line}" for line in shown]


def _consequence(failure: Failure) -> str:
    return f"consequence: worker {failure.worker}: {failure.error.splitlines()[0][:160]}"
