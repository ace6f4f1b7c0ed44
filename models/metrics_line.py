"""The lines of metrics.jsonl: their types, and the only place that writes and reads them. Pure.

Each line is one JSON object whose `kind` is ``step``, ``validation`` or ``epoch``; its other keys
are the fields of StepMetrics, ValidationMetrics or EpochMetrics, None left out.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Final

from tenfold.data.format.json_fields import from_json_fields


@dataclass(frozen=True)
class ReceiptLine:
    """A receipt of one epoch and split: see `Receipt` of `tenfold.data`.

    Fingerprints are 16 hexadecimal digits; `broken` names records that were skipped. `balanced`
    holds how often a record of each class is read on average, empty for once. `data` names the
    data set of a mixture, and `passes` how often an epoch reads it if that is not once. `of_epoch`
    is the number of records of the whole epoch where the run ended within it, 0 otherwise.
    """

    records: int
    expected: int
    left_out: int
    exact: bool
    fingerprint: str = ""
    expected_fingerprint: str = ""
    broken: tuple[str, ...] = ()
    repeated: int = 0
    balanced: Mapping[str, float] = field(default_factory=dict)
    data: str = ""
    passes: float | None = None
    of_epoch: int = 0


@dataclass(frozen=True)
class BottleneckLine:
    """What limited an epoch: `bound` is ``input``, ``communication`` or ``compute``.

    `wait` and `decode` are shares of time, one per worker; `communication` is the share of a
    step that summing the gradients takes, 0 with one worker.
    """

    bound: str = ""
    advice: str = ""
    wait: tuple[float, ...] = ()
    decode: tuple[float, ...] = ()
    communication: float = 0.0

    def sentence(self) -> str:
        """Return the verdict as a line of text: ``input-bound: …`` with the advice."""
        return f"{self.bound}-bound: {self.advice}"


@dataclass(frozen=True)
class StepMetrics:
    """One training step.

    Attributes:
      epoch: counted from 0.
      step: steps done since the run began, this one included.
      loss: the loss of this step.
      metrics: the model's metrics over the epoch so far, by name.
      records_per_s: records that all workers together read per second.
      wait_share: share of the time that steps waited for input, 0 to 1.
      exchange_share: the same for exchanging gradients, which begins with waiting for the other
        workers; None with one replica, and where it is not measured.
      learning_rate: after the last step of a call of steps, None at others.
      gradient_norm: the norm of the gradient of the global batch, None where it is not known.
      skipped: whether the update of this step was left out, because it was not finite.
    """

    epoch: int
    step: int
    loss: float
    metrics: Mapping[str, float]
    records_per_s: float
    wait_share: float
    exchange_share: float | None = None
    learning_rate: float | None = None
    gradient_norm: float | None = None
    skipped: bool | None = None


@dataclass(frozen=True)
class EpochMetrics:
    """One finished epoch: the fields of StepMetrics, of the whole epoch, and more.

    Attributes:
      epoch: counted from 0.
      step: steps done since the run began.
      loss: the mean loss of the epoch.
      metrics: the model's metrics by name; those of the validation split begin with ``val_``.
      records_per_s: records that all workers together read per second.
      wait_share: share of the time that steps waited for input, 0 to 1.
      receipt: the proof of which records were trained on.
      seconds: how long the training steps took.
      validation_receipt: the same for the validation split, None where there is none.
      bottleneck: what limited the epoch.
      other_receipts: the proofs for the further data sets of a mixture.
    """

    epoch: int
    step: int
    loss: float
    metrics: Mapping[str, float]
    records_per_s: float
    wait_share: float
    receipt: ReceiptLine
    seconds: float = 0.0
    validation_receipt: ReceiptLine | None = None
    bottleneck: BottleneckLine | None = None
    other_receipts: tuple[ReceiptLine, ...] = ()

    @property
    def is_exact(self) -> bool:
        """Whether every record of the epoch was trained on as often as it should be."""
        return all(receipt.exact for receipt in (self.receipt, *self.other_receipts))


@dataclass(frozen=True)
class ValidationMetrics:
    """An evaluation within an epoch (--validate_every); the names of `metrics` begin with val_."""

    epoch: int
    step: int
    metrics: Mapping[str, float]
    receipt: ReceiptLine


TrainingLine = StepMetrics | EpochMetrics
MetricsLine = TrainingLine | ValidationMetrics

_TYPES: Final[dict[str, type[StepMetrics] | type[ValidationMetrics] | type[EpochMetrics]]] = {
    "step": StepMetrics,
    "validation": ValidationMetrics,
    "epoch": EpochMetrics,
}
_KINDS: Final = {kind: name for name, kind in _TYPES.items()}


def encode_metrics(line: MetricsLine) -> str:
    """Return the JSON text of a line, newline included."""
    kind = _KINDS[type(line)]
    fields = {name: value for name, value in asdict(line).items() if value is not None}
    return json.dumps({"kind": kind, **fields}) + "\n"


def decode_metrics(text: str) -> MetricsLine:
    """Return the line that `encode_metrics` wrote.

    Raises:
      ValueError: it is damaged.
    """
    document = json.loads(text)
    kind = document.pop("kind", None) if isinstance(document, dict) else None
    if kind not in _TYPES:
        raise ValueError(f"kind is {kind!r}, none of {', '.join(_TYPES)}")
    return from_json_fields(_TYPES[kind], document, ignore_unknown=True)


def read_metrics_lines(data: bytes) -> tuple[list[MetricsLine], int]:
    """Return the lines of a metrics.jsonl, and the number of damaged ones.

    Text after the last newline is still being written and is ignored.
    """
    lines: list[MetricsLine] = []
    damaged = 0
    for raw in data.split(b"\n")[:-1]:
        try:
            lines.append(decode_metrics(raw.decode(errors="replace")))
        except ValueError:
            damaged += 1
    return lines, damaged
