"""Measurement of scaling: short training runs on several numbers of simulated hosts."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tenfold.data.errors import JobError
from tenfold.launcher.job.run_dir import METRICS_FILE
from tenfold.launcher.worker.python_argv import module_argv
from tenfold.models.metrics_line import EpochMetrics, read_metrics_lines

# The first epoch includes tracing and compiling; only the second is measured.
EPOCHS: Final = 2


@dataclass(frozen=True)
class Measured:
    """The second epoch of one run.

    Attributes:
      num_workers: the number of simulated hosts.
      steps_per_epoch: steps of the epoch.
      records_per_epoch: records that all workers together read.
      steps_per_s: steps per second.
      records_per_s: records per second over all workers.
      input_share: share of a step's time that the slowest worker waited for input.
      communication_share: share of a step's time that summing the gradients takes.
    """

    num_workers: int
    steps_per_epoch: int
    records_per_epoch: int
    steps_per_s: float
    records_per_s: float
    input_share: float
    communication_share: float

    @property
    def compute_share(self) -> float:
        """Share of a step's time that is neither input nor communication."""
        return max(0.0, 1.0 - self.input_share - self.communication_share)


def run_on(num_workers: int, flags: Sequence[str], *, run_dir: Path) -> Measured:
    """Train on `num_workers` simulated hosts and return the measurement.

    Args:
      num_workers: the number of hosts.
      flags: further flags of `tenfold launch`.
      run_dir: the run directory of the launch.

    Raises:
      JobError: the launch failed; the message holds its output.
    """
    argv = [
        *module_argv("tenfold"), "launch", "--backend=netns", f"--num_workers={num_workers}",
        f"--epochs={EPOCHS}", f"--run_dir={run_dir}", *flags,
    ]  # fmt: skip
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode:
        output = "\n".join([*done.stdout.splitlines()[:6], *done.stderr.splitlines()[-3:]])
        raise JobError(f"the run on {num_workers} hosts failed:\n{output}")
    lines, _ = read_metrics_lines((run_dir / METRICS_FILE).read_bytes())
    epochs = [line for line in lines if isinstance(line, EpochMetrics)]
    return read_epoch(epochs[-1], num_workers, steps=epochs[-1].step - epochs[-2].step)


def read_epoch(line: EpochMetrics, num_workers: int, *, steps: int) -> Measured:
    """Return the measurement in an epoch's line of metrics.jsonl.

    Args:
      line: the line of the epoch.
      num_workers: the number of hosts of the run.
      steps: steps of the epoch.
    """
    assert line.bottleneck is not None
    input_share = max(line.bottleneck.wait)
    return Measured(
        num_workers=num_workers,
        steps_per_epoch=steps,
        records_per_epoch=line.receipt.records,
        steps_per_s=steps / line.seconds,
        records_per_s=line.records_per_s,
        input_share=input_share,
        # The all-reduce was timed alone, before the first step. In the steps it may take less
        # time than that: the shares must not sum to more than 1.
        communication_share=min(line.bottleneck.communication, 1.0 - input_share),
    )


def efficiency(runs: Sequence[Measured], run: Measured) -> float:
    """Return the scaling efficiency of `run`, one of `runs`.

    This is its records per second and host, relative to the run on the fewest hosts.
    """
    first = min(runs, key=lambda measured: measured.num_workers)
    per_host = first.records_per_s / first.num_workers
    return run.records_per_s / run.num_workers / per_host
