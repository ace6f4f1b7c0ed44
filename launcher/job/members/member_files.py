"""The files by which the members of a joined job meet and report, in MEMBERS_FOLDER.

Every member is a process of its own on its own host and writes only files that carry its index,
so no file has two writers. Values and their JSON; `launcher.supervisor` reads and writes them.
"""

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Final, TypeVar

from tenfold.data.format.json_fields import from_json_fields
from tenfold.data.storage.folder import Folder
from tenfold.launcher.job.job_result import Failure
from tenfold.launcher.job.run_dir import MEMBERS_FOLDER

ROSTER_FILE: Final = f"{MEMBERS_FOLDER}/roster.json"


def introduction_file(index: int) -> str:
    """Return the file in which worker `index` introduces itself."""
    return f"{MEMBERS_FOLDER}/join-{index}.json"


def member_result_file(index: int) -> str:
    """Return the file that says how worker `index` ended."""
    return f"{MEMBERS_FOLDER}/result-{index}.json"


def member_job_file(index: int) -> str:
    """Return the file from which the trainer of worker `index` reads its job."""
    return f"{MEMBERS_FOLDER}/job-{index}.json"


@dataclass(frozen=True)
class Introduction:
    """A member that has come.

    Attributes:
      nonce: a random text of this start, so that files of earlier starts are not taken for it.
      chief: the nonce of the chief to whom it replies; the chief's own for the chief.
      num_workers: the number of workers that its surroundings give.
      host: the name of its host.
      address: its ``host:port``; "" where it is known already.
      job: a digest of the program or the training configuration.
    """

    nonce: str
    chief: str
    num_workers: int
    host: str
    address: str = ""
    job: str = ""


@dataclass(frozen=True)
class Roster:
    """The chief's answer to all members: their addresses, or why the job does not start.

    Attributes:
      chief: the nonce of the chief.
      nonces: the nonce of each member by worker index, "" for one that is missing.
      addresses: ``host:port`` of each member by worker index.
      problem: why the job does not start, "" where it starts.
    """

    chief: str
    nonces: tuple[str, ...]
    addresses: tuple[str, ...]
    problem: str = ""


@dataclass(frozen=True)
class MemberResult:
    """How one member ended.

    Attributes:
      worker: the worker's index.
      exit_code: of the worker's process, negative for a signal, None if it was lost.
      status: the exit status of the member; EXIT_PEER_FAILED for a consequence.
      cancelled: the member was asked to stop.
      failure: how the worker failed, None where it did not.
      seconds: how long it ran.
      final: the final figures, as the chief reported them.
    """

    worker: int
    exit_code: int | None
    status: int
    cancelled: bool = False
    failure: Failure | None = None
    seconds: float = 0.0
    final: dict[str, Any] = field(default_factory=dict)


T = TypeVar("T", Introduction, Roster, MemberResult)


def to_json(value: Introduction | Roster | MemberResult) -> bytes:
    """Return the content of the value's file."""
    return json.dumps(asdict(value), indent=1, ensure_ascii=False).encode() + b"\n"


def read_value(folder: Folder, name: str, kind: type[T]) -> T | None:
    """Return the value in a file of the run directory; None without one of this version."""
    try:
        return from_json_fields(kind, json.loads(folder.read(name) or b""))
    except ValueError:
        return None
