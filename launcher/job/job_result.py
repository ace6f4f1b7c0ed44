"""How a job ended: the types of result.json and their JSON."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from tenfold.data.errors import UserError

STATES: Final = ("succeeded", "failed", "cancelled")

RESULT_FILE: Final = "result.json"


@dataclass(frozen=True)
class Failure:
    """How one worker ended badly.

    `exit_code` is negative for a signal (as in subprocess); `time` is in seconds since 1970.
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
    """A failure (or a preemption) after which the job went on, with `num_workers` workers.

    `seconds` are from the failure to the first step after it; None where none was reported.
    """

    failure: Failure
    preempted: bool
    num_workers: int
    seconds: float | None = None


@dataclass(frozen=True)
class JobResult:
    """How a job ended: `state` is one of STATES; `first_failure` is the cause of its end,
    `consequences` what the other workers said of it; `recoveries` are the failures that it
    got over, `reason` why it did not go on, `signal` the number of the one that cancelled it,
    `notes` what else is worth knowing.
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

    def to_json(self) -> str:
        """Returns the text of result.json."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"


def result_from_json(text: str, *, where: str = RESULT_FILE) -> JobResult:
    """Returns the result that `JobResult.to_json` wrote; `where` names it in errors.

    Raises:
      UserError: the text is not a result of this version.
    """
    try:
        document = json.loads(text)
        first = document.pop("first_failure")
        consequences = tuple(Failure(**failure) for failure in document.pop("consequences"))
        recoveries = tuple(
            Recovery(**{**recovery, "failure": Failure(**recovery["failure"])})
            for recovery in document.pop("recoveries")
        )
        return JobResult(
            first_failure=Failure(**first) if first else None,
            consequences=consequences,
            recoveries=recoveries,
            exit_codes=tuple(document.pop("exit_codes")),
            notes=tuple(document.pop("notes", ())),
            **document,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{where} is not a job's result ({type(error).__name__}: {error}): "
            "it was damaged, or made by another version"
        ) from error
