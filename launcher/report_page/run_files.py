"""A run directory, read: whatever of it is there, at any moment of the job."""

import fcntl
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tenfold.data.errors import JobError, UserError
from tenfold.data.manifest import Manifest
from tenfold.data.storage import read_manifest
from tenfold.launcher.history import HISTORY_FILE
from tenfold.launcher.inventory import ENVIRONMENT_FILE
from tenfold.launcher.job import (
    JOB_FILE,
    RESULT_FILE,
    ClusterSpec,
    JobResult,
    JobSpec,
    job_from_json,
    result_from_json,
)
from tenfold.launcher.report_page.timeline import Event
from tenfold.launcher.rundir import LOCK_FILE

METRICS_FILE: Final = "metrics.jsonl"  # as models.run_log names it
RUNNING: Final = "running"


@dataclass(frozen=True)
class MetricsLine:
    """A line of metrics.jsonl: of one step, or of an epoch (which has `receipts`)."""

    step: int
    epoch: int
    loss: float
    metrics: Mapping[str, float]
    records_per_s: float
    wait_share: float
    receipts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class RunFiles:
    """What a run directory holds now.

    `state` is one of `launcher.job.STATES`, ``running``, or ``ended without a result``.
    `manifest` is that of the shards, None where there is none or it cannot be read: then
    `manifest_problem` says why. `damaged` counts lines that could not be read.
    """

    path: Path
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


def read_run(path: Path) -> RunFiles:
    """Returns what the run directory `path` holds now.

    Raises:
      UserError: it is not a run directory.
    """
    spec, cluster = _read_job(path)
    result = _read_result(path / RESULT_FILE)
    metrics, damaged_metrics = _read_lines(path / METRICS_FILE, _metrics_line)
    events, damaged_events = _read_lines(path / HISTORY_FILE, _event)
    manifest, problem = _find_manifest(spec)
    state = state_of(path, result)
    return RunFiles(
        path=path,
        read_at=time.time(),
        state=state,
        spec=spec,
        cluster=cluster,
        result=None if state == RUNNING else result,
        steps=tuple(line for line in metrics if not line.receipts),
        epochs=tuple(line for line in metrics if line.receipts),
        events=tuple(events),
        environment=_read_object(path / ENVIRONMENT_FILE),
        manifest=manifest,
        manifest_problem=problem,
        logs=tuple(sorted(file.name for file in (path / "logs").glob("worker-*.log"))),
        damaged=damaged_metrics + damaged_events,
    )


def state_of(path: Path, result: JobResult | None) -> str:
    """Returns the state of a run directory whose result.json holds `result`."""
    if is_running(path):
        return RUNNING
    return result.state if result else "ended without a result"


def is_running(path: Path) -> bool:
    """Says whether a launch holds the run directory's lock."""
    try:
        with (path / LOCK_FILE).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _read_job(path: Path) -> tuple[JobSpec, ClusterSpec]:
    if not path.is_dir():
        raise UserError(f"there is no folder '{path}': name the --run_dir of a launch")
    try:
        text = (path / JOB_FILE).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(
            f"'{path}' is not a run directory, it has no {JOB_FILE}: "
            "name the --run_dir of a launch"
        ) from error
    return job_from_json(text, where=str(path / JOB_FILE))


def _read_result(path: Path) -> JobResult | None:
    if not path.exists():
        return None
    return result_from_json(path.read_text(encoding="utf-8", errors="replace"), where=str(path))


def _read_object(path: Path) -> Mapping[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def _find_manifest(spec: JobSpec) -> tuple[Manifest | None, str]:
    shards = spec.train.get("shards")
    if not shards:
        return None, "a program of the user's own reads what it likes"
    try:
        return read_manifest(str(shards)), ""
    except (UserError, JobError, OSError) as error:
        return None, str(error)


def read_objects(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Returns the objects of a file of JSON lines, and how many lines it could not read."""
    return _read_lines(path, dict)


def _read_lines(path: Path, parse: Any) -> tuple[list[Any], int]:
    """Returns what `parse` makes of each whole line, and how many it could not read."""
    parsed, damaged = [], 0
    for line in _whole_lines(path):
        try:
            parsed.append(parse(json.loads(line)))
        except (ValueError, KeyError, TypeError, AttributeError):
            damaged += 1
    return parsed, damaged


def _whole_lines(path: Path) -> Iterator[str]:
    """Yields the lines but for a last one that is still being written."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            yield from (line for line in file if line.endswith("\n"))
    except FileNotFoundError:
        return


def _metrics_line(document: Mapping[str, Any]) -> MetricsLine:
    names = ("receipt", "validation_receipt")
    return MetricsLine(
        step=int(document["step"]),
        epoch=int(document["epoch"]),
        loss=float(document["loss"]),
        metrics={str(name): float(value) for name, value in document["metrics"].items()},
        records_per_s=float(document["records_per_s"]),
        wait_share=float(document["wait_share"]),
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
