"""Reading of a run directory at any moment of its job; missing files are no error."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from tenfold.data.errors import JobError, UserError
from tenfold.data.format.manifest import Manifest
from tenfold.data.storage.folder import Folder
from tenfold.data.storage.local_folder import LocalFolder
from tenfold.data.storage.open_folder import open_folder
from tenfold.data.storage.read_manifest import read_manifest
from tenfold.launcher.job.history.goodput import Goodput
from tenfold.launcher.job.history.goodput_meter import measure_goodput
from tenfold.launcher.job.history.history_line import (
    HistoryLine,
    LaunchBegun,
    decode_history,
    merge_history,
)
from tenfold.launcher.job.job_result import JobResult, result_from_json
from tenfold.launcher.job.job_spec import ClusterSpec, JobSpec, job_from_json
from tenfold.launcher.job.members.judge_members import judge_members
from tenfold.launcher.job.members.member_files import MemberResult, member_result_file, read_value
from tenfold.launcher.job.remote_run_dir import is_held
from tenfold.launcher.job.run_dir import (
    ENVIRONMENT_FILE,
    HISTORY_FILE,
    JOB_FILE,
    LOGS_FOLDER,
    MEMBERS_FOLDER,
    METRICS_FILE,
    RESULT_FILE,
    member_history_file,
    worker_log_name,
)
from tenfold.models.metrics_line import (
    EpochMetrics,
    MetricsLine,
    StepMetrics,
    read_metrics_lines,
)

RUNNING: Final = "running"


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
    steps: tuple[StepMetrics, ...]
    epochs: tuple[EpochMetrics, ...]
    events: tuple[HistoryLine, ...]
    environment: Mapping[str, Any]
    manifest: Manifest | None
    manifest_problem: str
    logs: tuple[str, ...]
    damaged: int

    @property
    def name(self) -> str:
        """The last part of the run directory's path."""
        return self.where.rpartition("/")[2]

    @property
    def launches(self) -> int:
        """The number of launches into the run directory."""
        return sum(isinstance(event.entry, LaunchBegun) for event in self.events)

    @cached_property
    def goodput(self) -> Goodput | None:
        """What the wall time of the last launch was spent on, None if it reports no steps."""
        if self.result and self.result.goodput:
            return self.result.goodput
        if not self.events:
            return None
        is_running = self.state == RUNNING
        end = self.read_at if is_running else self.events[-1].time
        return measure_goodput(self.events, now=end, state=self.state)


def read_run(where: str | Path) -> RunFiles:
    """Read the run directory `where`, a path or a URL.

    Raises:
      UserError: it is not a run directory.
      JobError: the storage could not be read.
    """
    folder = open_folder(str(where))
    spec, cluster = _read_job(folder)
    result = read_result(folder) or _result_of_members(folder, spec.num_workers)
    metrics, damaged_metrics = read_metrics(folder)
    events, damaged_events = _read_history(folder)
    manifest, problem = _find_manifest(spec)
    state = state_of(where, result)
    return RunFiles(
        where=folder.path,
        read_at=time.time(),
        state=state,
        spec=spec,
        cluster=cluster,
        result=None if state == RUNNING else result,
        steps=tuple(line for line in metrics if isinstance(line, StepMetrics)),
        epochs=tuple(line for line in metrics if isinstance(line, EpochMetrics)),
        events=tuple(events),
        environment=_read_object(folder, ENVIRONMENT_FILE),
        manifest=manifest,
        manifest_problem=problem,
        logs=_log_names(folder),
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


def _result_of_members(folder: Folder, num_workers: int) -> JobResult | None:
    """Return what the members of a joined job have reported, where its chief was lost."""
    if not any(name.startswith("result-") for name in folder.sizes(MEMBERS_FOLDER)):
        return None
    results = (
        read_value(folder, member_result_file(index), MemberResult) for index in range(num_workers)
    )
    members = {result.worker: result for result in results if result is not None}
    return judge_members(members, num_workers) if members else None


def _read_object(folder: Folder, name: str) -> Mapping[str, Any]:
    try:
        document = json.loads(folder.read(name) or b"")
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _find_manifest(spec: JobSpec) -> tuple[Manifest | None, str]:
    if spec.train is None:
        return None, "the job runs a program of the user's own, which reads its own data"
    try:
        return read_manifest(spec.train.shards), ""
    except (UserError, JobError, OSError) as error:
        return None, str(error)


def read_metrics(folder: Folder) -> tuple[list[MetricsLine], int]:
    """Return the lines of metrics.jsonl, and the number of damaged ones."""
    return read_metrics_lines(folder.read(METRICS_FILE) or b"")


def _read_history(folder: Folder) -> tuple[list[HistoryLine], int]:
    """Return the lines of history.jsonl and of the members' files, and the number damaged."""
    lines, damaged = _parse_history(folder.read(HISTORY_FILE) or b"")
    for name in sorted(folder.sizes(MEMBERS_FOLDER)):
        if fnmatch(f"{MEMBERS_FOLDER}/{name}", member_history_file("*")):
            more, more_damaged = _parse_history(folder.read(f"{MEMBERS_FOLDER}/{name}") or b"")
            lines, damaged = merge_history(lines, more), damaged + more_damaged
    return lines, damaged


def _parse_history(text: bytes) -> tuple[list[HistoryLine], int]:
    lines, damaged = [], 0
    # Text after the last newline is still being written.
    for raw in text.split(b"\n")[:-1]:
        try:
            lines.append(decode_history(raw.decode(errors="replace")))
        except ValueError:
            damaged += 1
    return lines, damaged


def _log_names(folder: Folder) -> tuple[str, ...]:
    names = folder.sizes(LOGS_FOLDER)
    return tuple(sorted(name for name in names if fnmatch(name, worker_log_name("*"))))
