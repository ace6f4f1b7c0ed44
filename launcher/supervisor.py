"""The supervisor: runs a job's workers to one of its ends, and says how it ended."""

import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Final

from tenfold.launcher import agent
from tenfold.launcher.backends import Backend, Host
from tenfold.launcher.environment import no_proxy_for
from tenfold.launcher.gang import Gang, Heard, WorkerStart, agent_argv
from tenfold.launcher.job import ClusterSpec, JobResult, JobSpec, worker_env
from tenfold.launcher.logs import WorkerLogs
from tenfold.launcher.records import WorkerRecord
from tenfold.launcher.rundir import RunDir
from tenfold.launcher.verdict import Verdict, has_failed, is_consequence, judge
from tenfold.launcher.view import View

TICK_S: Final = 0.1
# How long others may take to say what they know, once one has failed. Where all that is
# known blames a peer, the cause is given longer to show itself.
SETTLE_S: Final = 0.25
SETTLE_BLAMED_S: Final = 0.8
# A user's program gets this long to put its things in order when a peer has failed. The
# built-in trainer gets none: without its peers it has nothing left to save.
FAILURE_GRACE_S: Final = 2.0


@dataclass(frozen=True)
class Supervision:
    """How a job is looked after. Times in seconds."""

    grace_s: float = 20.0


class StopRequest:
    """Remembers the signals that ask this process to stop, while it is a context."""

    def __init__(self) -> None:
        self.count = 0
        self.signal: int | None = None
        self._old: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._old[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        self.count += 1
        self.signal = self.signal or number


@dataclass
class Attempt:
    """One start of all workers, until all are gone."""

    gang: Gang
    records: tuple[WorkerRecord, ...]
    view: View
    logs: WorkerLogs
    stop: StopRequest
    grace_s: float
    failure_grace_s: float
    verdict: Verdict | None = None
    final: dict[str, Any] = field(default_factory=dict)
    _failed_at: float | None = None
    _stops_asked: int = 0

    def run(self) -> None:
        """Runs to the end; `verdict` and `final` then say how it was."""
        while self.gang.running:
            for heard in self.gang.poll(TICK_S):
                self._take(heard)
            self._obey_stop()
            if not self._stops_asked and self.verdict is None:
                self._look_for_failure()
            self.view.tick(self.records)
        if not self._stops_asked and self.verdict is None:
            self.verdict = judge(self.records)

    def _take(self, heard: Heard) -> None:
        record = self.records[heard.worker]
        now = time.time()
        if heard.line is not None:
            record.take_line(heard.line, now)
            self.logs.write(heard.worker, heard.line)
            self.view.line(heard.worker, heard.line)
        elif heard.event is not None:
            record.take_event(heard.event)
            self.view.event(heard.worker, heard.event)
            if heard.event.kind == "result" and heard.worker == 0:
                self.final = heard.event.data
        else:
            record.take_loss(now)

    def _obey_stop(self) -> None:
        """The first signal asks the workers to end, the second makes them."""
        if self.stop.count > self._stops_asked:
            self.gang.stop(self.grace_s if self._stops_asked == 0 else 0.0)
            again = "; once more to kill them" if self._stops_asked == 0 else ""
            self.view.note(f"stopping the workers{again}")
            self._stops_asked = self.stop.count

    def _look_for_failure(self) -> None:
        failed = [record for record in self.records if has_failed(record)]
        if not failed:
            return
        now = time.monotonic()
        self._failed_at = self._failed_at or now
        blamed = all(is_consequence(record) for record in failed)
        if now - self._failed_at >= (SETTLE_BLAMED_S if blamed else SETTLE_S):
            self._conclude()

    def _conclude(self) -> None:
        self.verdict = judge(self.records)
        assert self.verdict is not None
        first = self.verdict.first
        self.view.note(f"worker {first.worker} failed: {first.error}; stopping the others")
        self.gang.stop(self.failure_grace_s)


def run_job(
    spec: JobSpec,
    backend: Backend,
    hosts: Sequence[Host],
    *,
    run_dir: RunDir,
    view: View,
    make_cluster: Callable[[], ClusterSpec],
    supervision: Supervision = Supervision(),
) -> JobResult:
    """Runs a job to its end and returns how it ended; result.json holds the same.

    `make_cluster` gives the workers' addresses, new ones for each attempt.
    """
    agent.set_child_subreaper()
    began = time.monotonic()
    logs = WorkerLogs(run_dir.path / "logs", spec.num_workers)
    try:
        with StopRequest() as stop:
            cluster = make_cluster()
            run_dir.write_job(spec, cluster)
            attempt = _run_attempt(
                spec, cluster, backend, hosts, view=view, logs=logs, stop=stop, how=supervision
            )
            result = _result(attempt, time.monotonic() - began)
    finally:
        logs.close()
        view.close()
    run_dir.write_result(result)
    return result


def _run_attempt(
    spec: JobSpec,
    cluster: ClusterSpec,
    backend: Backend,
    hosts: Sequence[Host],
    *,
    view: View,
    logs: WorkerLogs,
    stop: StopRequest,
    how: Supervision,
) -> Attempt:
    logs.begin("start")
    gang = Gang([_start(spec, cluster, backend, host, index) for index, host in enumerate(hosts)])
    try:
        attempt = Attempt(
            gang=gang,
            records=tuple(WorkerRecord(index) for index in range(len(hosts))),
            view=view,
            logs=logs,
            stop=stop,
            grace_s=how.grace_s,
            failure_grace_s=0.0 if spec.train else min(FAILURE_GRACE_S, how.grace_s),
        )
        attempt.run()
    finally:
        gang.close()
    return attempt


def _start(
    spec: JobSpec, cluster: ClusterSpec, backend: Backend, host: Host, index: int
) -> WorkerStart:
    reads = {
        "argv": list(spec.argv),
        "env": {
            **worker_env(spec, cluster, index),
            **no_proxy_for(os.environ, cluster.workers),
        },
        "cwd": spec.cwd,
        "worker": index,
        "port": int(cluster.workers[index].rpartition(":")[2]),
    }
    return WorkerStart(index, backend.command(host, agent_argv(host.python), {}), reads)


def _result(attempt: Attempt, seconds: float) -> JobResult:
    verdict = attempt.verdict
    cancelled = attempt.stop.count > 0 and not all(r.exit_code == 0 for r in attempt.records)
    state = "cancelled" if cancelled else "failed" if verdict else "succeeded"
    return JobResult(
        state=state,
        exit_codes=tuple(record.exit_code for record in attempt.records),
        first_failure=verdict.first if verdict else None,
        consequences=verdict.consequences if verdict else (),
        seconds=round(seconds, 3),
        final=attempt.final,
    )
