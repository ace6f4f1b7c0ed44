"""Messages from a worker and its agent to the supervisor, as lines of the worker's output.

A line that starts with the record separator (0x1e, as in RFC 7464) is one JSON object; every
other line is log text. Messages therefore pass through every back end that carries standard
output: a pipe, ssh, srun. The object's keys are `kind` (see MESSAGES), `worker` (the task
index), `phase`, `time` (the sender's clock, seconds since 1970) and `data`, the fields of the
message. The agent writes the same format by itself, because it is one file that runs without
this package.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import IO, Any, Final

from tenfold.data.format.json_fields import from_json_fields

MARK: Final = "\x1e"

PHASES: Final = (
    "import",
    "rendezvous",
    "build",
    "first_step",
    "training",
    "evaluation",
    "prediction",
    "checkpoint",
    "diagnosis",
    "saving",
    "done",
)

# Exit status of a worker that stopped because a peer failed: the supervisor can then tell
# causes from consequences (75: EX_TEMPFAIL of sysexits.h).
EXIT_PEER_FAILED: Final = 75

# Exit status of a worker that was asked to stop (SIGTERM) and has written a checkpoint.
EXIT_PREEMPTED: Final = 76

# Exit status of a worker whose loss or weights are not finite. All workers see that at the same
# step, and would see it there again after a restart.
EXIT_NOT_FINITE: Final = 77
NOT_FINITE_ERROR: Final = "NotFiniteError"  # the type of its error

# The type of the error of workers whose number does not suit the model.
UNEVEN_PARTS_ERROR: Final = "UnevenPartsError"


# -- Messages of the agent ------------------------------------------------------------------


@dataclass(frozen=True)
class Started:
    """The agent has started the worker; `pid` is 0 where that failed."""

    pid: int


@dataclass(frozen=True)
class Stat:
    """The worker's process as the agent sees it, once a second.

    Attributes:
      state: a letter of /proc/PID/stat (man 5 proc); ``T`` and ``t`` are stopped.
      rss_bytes: resident memory.
      cpu_s: CPU time since the start.
      listening: whether the worker's port is open.
      links_down: the host's network devices that have lost their link since the start.
    """

    state: str
    rss_bytes: int = 0
    cpu_s: float = 0.0
    listening: bool = False
    links_down: tuple[str, ...] = ()


@dataclass(frozen=True)
class Exit:
    """The worker has ended.

    Attributes:
      code: the exit status, negative for a signal.
      oom: the kernel's out-of-memory killer has struck on the host.
      by_us: the agent had been told to stop the worker.
    """

    code: int
    oom: bool = False
    by_us: bool = False


# -- Messages of the worker -----------------------------------------------------------------


@dataclass(frozen=True)
class Phase:
    """The phase in which the message is sent begins."""


@dataclass(frozen=True)
class Resumed:
    """Training continues from a checkpoint at `step` of the whole run."""

    step: int
    epoch: int = 0


@dataclass(frozen=True)
class Step:
    """Progress. Everything but `step` is None where the program does not report it.

    Attributes:
      step: counted over the whole job.
      epoch: counted from 0.
      total_steps: the steps of the whole job.
      loss: the loss of this step.
      records_per_s: records that all workers together read per second.
      wait_share: share of the time that steps waited for input, 0 to 1.
      exchange_share: the same for exchanging gradients, which begins with waiting for the other
        workers.
    """

    step: int
    epoch: int | None = None
    total_steps: int | None = None
    loss: float | None = None
    records_per_s: float | None = None
    wait_share: float | None = None
    exchange_share: float | None = None


@dataclass(frozen=True)
class Epoch:
    """A finished epoch; `epoch` counts from 0. `sentences` describe it for a person."""

    epoch: int | None = None
    epochs: int | None = None
    loss: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    records_per_s: float | None = None
    sentences: tuple[str, ...] = ()


@dataclass(frozen=True)
class CheckpointSaved:
    """A whole checkpoint exists at `path`, made at `step` of the whole run."""

    path: str
    epoch: int
    step: int


@dataclass(frozen=True)
class NotFinite:
    """The loss, a gradient or a weight is not finite; all workers report the same.

    Attributes:
      step: the first such step, counted over the whole run from 1.
      epoch: its epoch, counted from 0.
      what: ``loss``, ``gradient`` or ``weights``.
      action: what the run does now: ``fail``, ``skip``, ``stop`` or ``ignore``.
      records: names of records of that step, the offending ones where they are known.
      where: where the first such value appeared, in words; empty where that is not known.
      sentence: all of this for a person, in one line.
      kept_step: with ``stop``, the step of the checkpoint that is kept.
      in_a_row: with ``skip``, the number of skipped steps in a row that ends the run, else 0.
    """

    step: int
    epoch: int
    what: str
    action: str
    records: tuple[str, ...] = ()
    where: str = ""
    sentence: str = ""
    kept_step: int | None = None
    in_a_row: int = 0

    @property
    def is_skipped(self) -> bool:
        """Whether the step was left out, and the run goes on."""
        return self.action == "skip" and not self.in_a_row


@dataclass(frozen=True)
class Error:
    """The worker is about to end with an exception."""

    type: str = "Error"
    message: str = ""
    traceback: str = ""


@dataclass(frozen=True)
class WorkerPreempted:
    """The worker was asked to stop and has saved a checkpoint."""


@dataclass(frozen=True)
class Remark:
    """Something that a person should know, in one line; all workers report the same."""

    text: str


@dataclass(frozen=True)
class Result:
    """The final figures of the job, by name."""

    figures: Mapping[str, Any]


@dataclass(frozen=True)
class Unknown:
    """A message of a kind that this version does not know, from a newer worker or agent."""

    kind: str


Message = (
    Started | Stat | Exit | Phase | Resumed | Step | Epoch | CheckpointSaved | NotFinite
    | Error | WorkerPreempted | Remark | Result | Unknown
)  # fmt: skip

MESSAGES: Final[dict[str, type]] = {
    "started": Started,
    "stat": Stat,
    "exit": Exit,
    "phase": Phase,
    "resumed": Resumed,
    "step": Step,
    "epoch": Epoch,
    "checkpoint": CheckpointSaved,
    "not_finite": NotFinite,
    "error": Error,
    "preempted": WorkerPreempted,
    "remark": Remark,
    "result": Result,
}
_KINDS: Final = {message: kind for kind, message in MESSAGES.items()}

# Messages of the agent say nothing about the progress of the worker.
AGENT_MESSAGES: Final = (Started, Stat, Exit)


@dataclass(frozen=True)
class WorkerEvent:
    """A message with its envelope: who sent it, in which phase, and when by its own clock."""

    worker: int
    phase: str
    message: Message
    time: float = field(default_factory=time.time)

    @property
    def kind(self) -> str:
        """The name of the message's type in the JSON form."""
        return kind_of(self.message)


def kind_of(message: Message) -> str:
    """Return the name of a message's type in the JSON form."""
    return message.kind if isinstance(message, Unknown) else _KINDS[type(message)]


class MalformedEvent(ValueError):
    """A line has the mark of an event but does not hold one."""


def encode_event(event: WorkerEvent) -> str:
    """Return the line, without a newline, that carries `event`."""
    document = {
        "kind": event.kind,
        "worker": event.worker,
        "phase": event.phase,
        "time": event.time,
        "data": _data_of(event.message),
    }
    return MARK + json.dumps(document, ensure_ascii=True, separators=(",", ":"))


def _data_of(message: Message) -> Mapping[str, Any]:
    return message.figures if isinstance(message, Result) else asdict(message)


def decode_event(line: str) -> WorkerEvent:
    """Return the event that a line, which starts with the mark, carries.

    Raises:
      MalformedEvent: it carries none.
    """
    try:
        envelope = from_json_fields(
            _Envelope, json.loads(line.removeprefix(MARK)), ignore_unknown=True
        )
        message = _parse_message(envelope.kind, envelope.data)
    except (ValueError, RecursionError) as error:
        raise MalformedEvent(str(error)) from error
    return WorkerEvent(envelope.worker, envelope.phase, message, envelope.time)


@dataclass(frozen=True)
class _Envelope:
    kind: str
    worker: int
    phase: str
    time: float = 0.0
    data: Mapping[str, Any] = field(default_factory=dict)


def _parse_message(kind: str, data: Mapping[str, Any]) -> Message:
    if kind == "step":
        return _parse_step(data)
    if kind == "epoch":
        return _parse_epoch(data)
    if kind == "result":
        return Result(data)
    if kind not in MESSAGES:
        return Unknown(kind)
    message: Message = from_json_fields(MESSAGES[kind], data, ignore_unknown=True)
    return message


def _parse_step(data: Mapping[str, Any]) -> Step:
    """Parse a step leniently: a user's program may report figures of any type."""
    if type(data.get("step")) is not int:
        raise ValueError(f"step is {data.get('step')!r}, not a whole number")
    return Step(
        step=data["step"],
        epoch=_whole(data.get("epoch")),
        total_steps=_whole(data.get("total_steps")),
        loss=_number(data.get("loss")),
        records_per_s=_number(data.get("records_per_s")),
        wait_share=_number(data.get("wait_share")),
        exchange_share=_number(data.get("exchange_share")),
    )


_NOT_METRICS: Final = (
    "epoch", "epochs", "loss", "records_per_s", "wait_share", "exchange_share", "time", "step",
)  # fmt: skip


def _parse_epoch(data: Mapping[str, Any]) -> Epoch:
    """Parse an epoch leniently: all other numbers of a user's program are its metrics."""
    metrics = data.get("metrics")
    if not isinstance(metrics, dict) or not metrics:
        metrics = {name: value for name, value in data.items() if name not in _NOT_METRICS}
    sentences = data.get("sentences")
    return Epoch(
        epoch=_whole(data.get("epoch")),
        epochs=_whole(data.get("epochs")),
        loss=_number(data.get("loss")),
        metrics={
            name: number
            for name, value in metrics.items()
            if (number := _number(value)) is not None
        },
        records_per_s=_number(data.get("records_per_s")),
        sentences=tuple(map(str, sentences)) if isinstance(sentences, list) else (),
    )


def _whole(value: Any) -> int | None:
    return value if type(value) is int else None


def _number(value: Any) -> float | None:
    try:
        return float(value) if type(value) in (int, float) else None
    except OverflowError:
        return None


def split_output(line: str) -> tuple[str | None, WorkerEvent | None]:
    """Split a line of a worker's output into log text and an event; either may be None.

    Text may stand before the mark: a print without a newline. A malformed event is log text.
    """
    text, mark, rest = line.partition(MARK)
    if not mark:
        return text, None
    try:
        return text or None, decode_event(rest)
    except MalformedEvent:
        return text + rest, None


class EventWriter:
    """Writes a worker's events to a stream, each as one whole flushed line."""

    def __init__(self, stream: IO[str], worker: int) -> None:
        self._stream = stream
        self._worker = worker
        self.phase = "import"

    def enter(self, phase: str) -> None:
        """Send the message that `phase` begins."""
        assert phase in PHASES, phase
        self.phase = phase
        self.send(Phase())

    def send(self, message: Message) -> None:
        """Send a message of the current phase."""
        event = WorkerEvent(self._worker, self.phase, message)
        # One write for the whole line: prints of other threads cannot come in between.
        self._stream.write(encode_event(event) + "\n")
        self._stream.flush()
