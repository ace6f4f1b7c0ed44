"""Short real runs on simulated hosts, at several numbers of them, side by side."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tenfold.data.errors import JobError
from tenfold.launcher.job.run_dir import METRICS_FILE
from tenfold.launcher.worker.python_argv import module_argv
from tenfold.models.metrics_line import EpochMetrics, read_metrics_lines

# The first epoch holds the tracing and compiling of the steps; the second one counts.
EPOCHS: Final = 2


@dataclass(frozen=True)
class Measured:
    """One run's second epoch; shares are of a step's time, input that of the slowest worker.

    `records_per_epoch` were read by all workers together, each once.
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
        """What is neither input nor communication."""
        return max(0.0, 1.0 - self.input_share - self.communication_share)


def run_on(num_workers: int, flags: Sequence[str], *, run_dir: Path) -> Measured:
    """Launches a run on `num_workers` simulated hosts; returns what it measured.

    Raises:
      JobError: it failed; the message is the launch's own.
    """
    argv = [
        *module_argv("tenfold"), "launch", "--backend=netns", f"--num_workers={num_workers}",
        f"--epochs={EPOCHS}", f"--run_dir={run_dir}", *flags,
    ]  # fmt: skip
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode:
        said = "\n".join([*done.stdout.splitlines()[:6], *done.stderr.splitlines()[-3:]])
        raise JobError(f"the run on {num_workers} hosts failed:\n{said}")
    lines, _ = read_metrics_lines((run_dir / METRICS_FILE).read_bytes())
    epochs = [line for line in lines if isinstance(line, EpochMetrics)]
    return read_epoch(epochs[-1], num_workers, steps=epochs[-1].step - epochs[-2].step)


def read_epoch(line: EpochMetrics, num_workers: int, *, steps: int) -> Measured:
    """Returns what an epoch's line of metrics.jsonl tells of its `steps` steps."""
    assert line.bottleneck is not None
    input_share = max(line.bottleneck.wait)
    return Measured(
        num_workers=num_workers,
        steps_per_epoch=steps,
        records_per_epoch=line.receipt.records,
        steps_per_s=steps / line.seconds,
        records_per_s=line.records_per_s,
        input_share=input_share,
        # One sum was timed alone, after the steps: its share of them is not exact.
        communication_share=min(line.bottleneck.communication, 1.0 - input_share),
    )


def efficiency(found: Sequence[Measured], at: Measured) -> float:
    """Returns the records per second and host, as a share of those on the fewest hosts."""
    first = min(found, key=lambda measured: measured.num_workers)
    per_host = first.records_per_s / first.num_workers
    return at.records_per_s / at.num_workers / per_host
