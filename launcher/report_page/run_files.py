"""Reading a run directory at any moment of its job, with whatever files exist."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final

from tenfold.data.errors import JobError, UserError
from tenfold.data.format.manifest import Manifest
from tenfold.data.storage.folder import Folder
from tenfold.data.storage.local_folder import LocalFolder
from tenfold.data.storage.open_folder import open_folder
from tenfold.data.storage.read_manifest import read_manifest
from tenfold.launcher.job.environment_file import ENVIRONMENT_FILE
from tenfold.launcher.job.job_result import RESULT_FILE, JobResult, result_from_json
from tenfold.launcher.job.job_spec import JOB_FILE, ClusterSpec, JobSpec, job_from_json
from tenfold.launcher.job.remote_run_dir import is_held
from tenfold.launcher.job.run_dir import HISTORY_FILE
from tenfold.launcher.report_page.timeline import Event

METRICS_FILE: Final = "metrics.jsonl"  # as models.run_log names it
RUNNING: Final = "running"


@dataclass(frozen=True)
class MetricsLine:
    """A line of metrics.jsonl: of a step, or of an epoch (which has `receipts`).

    `communication` is an epoch's estimate of the share of a step that summing the gradients
    takes; 0 if it was not measured, as with one worker.
    """

    step: int
    epoch: int
    loss: float
    metrics: Mapping[str, float]
    records_per_s: float
    wait_share: float
    communication: float = 0.0
    receipts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class RunFiles:
    """The contents of a run directory at `read_at` (seconds since 1970).

    `state` is one of `launcher.job.job_result.STATES`, ``running``, or ``ended without a
    result``. `manifest` is the manifest of the shards; if it is None, `manifest_problem` is the
    reason. `damaged` is the number of lines that could not be parsed.
    """

    where: str
    read_at: float
    state: str
    spec: JobSpec
    cluster: ClusterSpec
    result: JobResult | None
    steps: tuple[MetricsLine, ...]
    epochs: tuple[MetricsLine, ...]
    events: tuple[Event, ...]
    environment: Mapping[str, Any]
    manifest: Manifest | None
    manifest_problem: str
    logs: tuple[str, ...]
    damaged: int

    @property
    def name(self) -> str:
        """The last part of the run directory's path."""
        return self.where.rpartition("/")[2]


def read_run(where: str | Path) -> RunFiles:
    """Read the run directory `where`, a path or a URL.

    Raises:
      UserError: it is not a run directory.
      JobError: the storage could not be read.
    """
    folder = open_folder(str(where))
    spec, cluster = _read_job(folder)
    result = read_result(folder)
    metrics, damaged_metrics = _read_lines(folder, METRICS_FILE, _metrics_line)
    events, damaged_events = _read_lines(folder, HISTORY_FILE, _event)
    manifest, problem = _find_manifest(spec)
    state = state_of(where, result)
    return RunFiles(
        where=folder.path,
        read_at=time.time(),
        state=state,
        spec=spec,
        cluster=cluster,
        result=None if state == RUNNING else result,
        steps=tuple(line for line in metrics if not line.receipts),
        epochs=tuple(line for line in metrics if line.receipts),
        events=tuple(events),
        environment=_read_object(folder, ENVIRONMENT_FILE),
        manifest=manifest,
        manifest_problem=problem,
        logs=tuple(sorted(n for n in folder.sizes("logs") if fnmatch(n, "worker-*.log"))),
        damaged=damaged_metrics + damaged_events,
    )


def state_of(where: str | Path, result: JobResult | None) -> str:
    """Return the state of a run directory; `result` is its result.json, None if it has none."""
    if is_held(str(where)):
        return RUNNING
    return result.state if result else "ended without a result"


def _read_job(folder: Folder) -> tuple[JobSpec, ClusterSpec]:
    if isinstance(folder, LocalFolder) and not Path(folder.path).is_dir():
        raise UserError(f"there is no folder '{folder.path}': give the --run_dir of a launch")
    text = folder.read(JOB_FILE)
    if text is None:
        raise UserError(
            f"'{folder.path}' is not a run directory, it has no {JOB_FILE}: "
            "give the --run_dir of a launch"
        )
    return job_from_json(text.decode(errors="replace"), where=f"{folder.path}/{JOB_FILE}")


def read_result(folder: Folder) -> JobResult | None:
    """Return the result of the job of a run directory, or None if the job has not ended.

    Raises:
      UserError: result.json is damaged.
    """
    text = folder.read(RESULT_FILE)
    if text is None:
        return None
    where = f"{folder.path}/{RESULT_FILE}"
    return result_from_json(text.decode(errors="replace"), where=where)


def _read_object(folder: Folder, name: str) -> Mapping[str, Any]:
    try:
        document = json.loads(folder.read(name) or b"")
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _find_manifest(spec: JobSpec) -> tuple[Manifest | None, str]:
    shards = spec.train.get("shards")
    if not shards:
        return None, "the job runs a program of the user's own, which reads its own data"
    try:
        return read_manifest(str(shards)), ""
    except (UserError, JobError, OSError) as error:
        return None, str(error)


def read_objects(folder: Folder, name: str) -> tuple[list[dict[str, Any]], int]:
    """Return the objects of a file of JSON lines, and the number of lines that are damaged."""
    return _read_lines(folder, name, dict)


def _read_lines(folder: Folder, name: str, parse: Any) -> tuple[list[Any], int]:
    """Return `parse` of each complete line, and the number of lines that it could not parse."""
    parsed, damaged = [], 0
    # The text after the last newline is a line that is still being written.
    for line in (folder.read(name) or b"").split(b"\n")[:-1]:
        try:
            parsed.append(parse(json.loads(line.decode(errors="replace"))))
        except (ValueError, KeyError, TypeError, AttributeError):
            damaged += 1
    return parsed, damaged


def _metrics_line(document: Mapping[str, Any]) -> MetricsLine:
    names = ("receipt", "validation_receipt")
    return MetricsLine(
        step=int(document["step"]),
        epoch=int(document["epoch"]),
        loss=float(document["loss"]),
        metrics={str(name): float(value) for name, value in document["metrics"].items()},
        records_per_s=float(document["records_per_s"]),
        wait_share=float(document["wait_share"]),
        communication=float(document.get("bottleneck", {}).get("communication", 0.0)),
        receipts={name: dict(document[name]) for name in names if name in document},
    )


def _event(document: Mapping[str, Any]) -> Event:
    known = {"time", "kind", "worker", "phase"}
    return Event(
        time=float(document["time"]),
        kind=str(document["kind"]),
        worker=int(document.get("worker", -1)),
        phase=str(document.get("phase", "")),
        data={name: value for name, value in document.items() if name not in known},
    )
