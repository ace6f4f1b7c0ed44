"""What a worker says to the supervisor, as lines among its ordinary output.

A line that starts with the record separator (0x1e, as in RFC 7464) is one JSON object;
every other line is log text. So events pass through every back end that carries standard
output: a pipe, ssh, srun.
"""

import json
import time
from dataclasses import asdict, dataclass, field
from typing import IO, Any, Final

from tenfold.launcher.job.faults import WorkerFaults

MARK: Final = "\x1e"

PHASES: Final = (
    "import",
    "rendezvous",
    "build",
    "first_step",
    "training",
    "evaluation",
    "checkpoint",
    "saving",
    "done",
)

# A worker that stopped because a peer did exits with this, so that the supervisor can tell
# causes from consequences (75: EX_TEMPFAIL of sysexits.h).
EXIT_PEER_FAILED: Final = 75

# A worker that stopped because it was asked to (SIGTERM) and has written a checkpoint.
EXIT_PREEMPTED: Final = 76


@dataclass(frozen=True)
class WorkerEvent:
    """One thing that a worker says.

    `kind` is ``phase`` (a new phase begins), ``step`` (progress), ``epoch`` (its results),
    ``error`` (it is about to die), ``checkpoint`` (a whole one exists) or ``result`` (the
    job's final figures) or ``resumed`` (it goes on from a checkpoint). `data` depends on the kind:

    - step: epoch, step (global, counted from 0 over all epochs), total_steps, loss, metrics,
      records_per_s, wait_share (share of time waiting for input)
    - epoch: what metrics.jsonl holds for the epoch, the receipt included
    - error: type, message, traceback
    - checkpoint: path, epoch, step
    - resumed: epoch, step

    `time` is the worker's clock in seconds since 1970, `worker` its task index.
    """

    kind: str
    worker: int
    phase: str
    time: float = field(default_factory=time.time)
    data: dict[str, Any] = field(default_factory=dict)


def encode_event(event: WorkerEvent) -> str:
    """Returns the line, without a newline, that carries `event`."""
    return MARK + json.dumps(asdict(event), ensure_ascii=True, separators=(",", ":"))


def decode_event(line: str) -> WorkerEvent | None:
    """Returns the event that `line` carries, or None where it is log text (or damaged)."""
    if not line.startswith(MARK):
        return None
    try:
        document = json.loads(line[len(MARK) :])
        return WorkerEvent(**document)
    except (ValueError, TypeError):
        return None


class EventWriter:
    """Writes a worker's events to a stream, each as one whole flushed line.

    `faults` are carried out at the steps that are reported.
    """

    def __init__(
        self, stream: IO[str], worker: int, *, faults: WorkerFaults | None = None
    ) -> None:
        self._stream = stream
        self._worker = worker
        self.phase = "import"
        self._faults = faults or WorkerFaults({})

    def enter(self, phase: str, **data: Any) -> None:
        """Says that `phase` begins."""
        assert phase in PHASES, phase
        self.phase = phase
        self.send("phase", **data)

    def send(self, kind: str, **data: Any) -> None:
        """Says one thing of the current phase."""
        event = WorkerEvent(kind=kind, worker=self._worker, phase=self.phase, data=data)
        # One write for the whole line: what other threads print cannot fall into it.
        self._stream.write(encode_event(event) + "\n")
        self._stream.flush()
        if kind == "step":
            self._faults.at_step(int(data["step"]))
            self._faults.after_telling(int(data["step"]))
