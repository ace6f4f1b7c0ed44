"""Short real runs on simulated hosts, at several numbers of them, side by side."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tenfold.data.errors import JobError
from tenfold.launcher.worker.python_argv import module_argv

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
    """Launch a run on `num_workers` simulated hosts; returns what it measured.

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
    lines = (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    epochs = [line for line in map(json.loads, lines) if line["kind"] == "epoch"]
    return read_epoch(epochs[-1], num_workers, steps=epochs[-1]["step"] - epochs[-2]["step"])


def read_epoch(line: Mapping[str, Any], num_workers: int, *, steps: int) -> Measured:
    """Return what an epoch's line of metrics.jsonl tells of its `steps` steps."""
    shares = line["bottleneck"]
    input_share = max(shares["wait"])
    return Measured(
        num_workers=num_workers,
        steps_per_epoch=steps,
        records_per_epoch=line["receipt"]["records"],
        steps_per_s=steps / line["seconds"],
        records_per_s=line["records_per_s"],
        input_share=input_share,
        # One sum was timed alone, after the steps: its share of them is not exact.
        communication_share=min(shares["communication"], 1.0 - input_share),
    )


def efficiency(found: Sequence[Measured], at: Measured) -> float:
    """Return the records per second and host, as a share of those on the fewest hosts."""
    first = min(found, key=lambda measured: measured.num_workers)
    per_host = first.records_per_s / first.num_workers
    return at.records_per_s / at.num_workers / per_host
