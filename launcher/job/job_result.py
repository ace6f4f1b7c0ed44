"""How a job ended: the types of result.json and their JSON."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from tenfold.data.errors import UserError
from tenfold.data.format.json_fields import from_json_fields
from tenfold.data.units import plural
from tenfold.launcher.job.history.goodput import Goodput

STATES: Final = ("succeeded", "failed", "cancelled")


@dataclass(frozen=True)
class Failure:
    """How one worker failed.

    Attributes:
      worker: the task index.
      time: when it failed, in seconds since 1970.
      phase: the phase in which it failed, empty for a program that reports none.
      step: the last step that it reported, None where it reported none.
      exit_code: the exit status, negative for a signal, None while it was still running.
      error: the error, its first line the exception.
      traceback: the traceback or stack, empty where there is none.
    """

    worker: int
    time: float
    phase: str
    step: int | None
    exit_code: int | None
    error: str
    traceback: str = ""


@dataclass(frozen=True)
class Recovery:
    """A failure or preemption after which the job was restarted on `num_workers` workers.

    `seconds` pass from the failure to the next step; None where no step was reported.
    """

    failure: Failure
    preempted: bool
    num_workers: int
    seconds: float | None = None


@dataclass(frozen=True)
class SizeChange:
    """A start of the job with other hosts than before.

    Attributes:
      time: when, in seconds since 1970.
      before: the number of workers until then.
      num_workers: the number of workers from then on.
      reason: why the hosts changed.
      step: the step after which the job stopped to change, None where none was reported.
      seconds: the time from the stop to the next step, None where no step was reported.
    """

    time: float
    before: int
    num_workers: int
    reason: str
    step: int | None = None
    seconds: float | None = None

    @property
    def sentence(self) -> str:
        """The change in words."""
        if self.num_workers == self.before:
            return self.reason
        return f"{plural(self.num_workers, 'worker')} instead of {self.before}: {self.reason}"


@dataclass(frozen=True)
class JobResult:
    """How a job ended.

    Attributes:
      state: one of STATES.
      exit_codes: one per worker, None for a worker that was lost.
      restarts: the number of restarts.
      first_failure: the failure that ended the job.
      consequences: failures of other workers that followed from the first.
      seconds: how long the job took.
      final: the final figures by name, as the chief reported them.
      recoveries: the failures after which the job was restarted.
      reason: why the job was not restarted, empty where no restart was considered.
      signal: the number of the signal that cancelled the job.
      notes: further lines for a person.
      resizes: the changes of the hosts, oldest first.
      goodput: what the wall time was spent on, None for a program that reports no steps.
    """

    state: str
    exit_codes: tuple[int | None, ...]
    restarts: int = 0
    first_failure: Failure | None = None
    consequences: tuple[Failure, ...] = ()
    seconds: float = 0.0
    final: dict[str, Any] = field(default_factory=dict)
    recoveries: tuple[Recovery, ...] = ()
    reason: str = ""
    signal: int | None = None
    notes: tuple[str, ...] = ()
    resizes: tuple[SizeChange, ...] = ()
    goodput: Goodput | None = None

    def to_json(self) -> str:
        """Return the text of result.json."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"


def result_from_json(text: str, *, where: str) -> JobResult:
    """Return the result that `JobResult.to_json` wrote; `where` names it in errors.

    Raises:
      UserError: the text is not a result of this version; the message names the field.
    """
    try:
        return from_json_fields(JobResult, json.loads(text))
    except ValueError as error:
        raise UserError(
            f"{where} is not a job's result ({error}): it was damaged, or made by another version"
        ) from error
