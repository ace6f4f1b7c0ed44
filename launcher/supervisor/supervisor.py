"""The supervisor: runs a job through its attempts to its end, and says how it ended."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from tenfold.data.errors import UserError
from tenfold.launcher.backends.base import Backend, Host
from tenfold.launcher.display.view import View
from tenfold.launcher.display.worker_logs import WorkerLogs
from tenfold.launcher.job.faults import faults_to_env
from tenfold.launcher.job.job_result import JobResult, Recovery
from tenfold.launcher.job.job_spec import ClusterSpec, HostCommand, JobSpec, worker_env
from tenfold.launcher.job.run_dir import LOGS_FOLDER, METRICS_FILE, RunDir
from tenfold.launcher.job.worker_record import WorkerRecord
from tenfold.launcher.supervisor.attempt import FAILURE_GRACE_S, Attempt
from tenfold.launcher.supervisor.fault_injection import FaultInjector, LossCheck, read_losses
from tenfold.launcher.supervisor.host_selection import select_hosts
from tenfold.launcher.supervisor.restarts import Ending, RestartPolicy, decide
from tenfold.launcher.supervisor.watchdog import WatchPolicy
from tenfold.launcher.supervisor.worker_processes import (
    AgentProcess,
    WorkerProcesses,
    WorkerStart,
    agent_argv,
)
from tenfold.launcher.worker import agent
from tenfold.launcher.worker.environment import no_proxy_for
from tenfold.launcher.worker.forkserver import ForkServer, wait_until_ready
from tenfold.launcher.worker.stop_signals import StopRequest

# The way to a remote host may break without either end being told.
HEARTBEAT_TIMEOUT_S: Final = 10.0

PRELOAD_TIMEOUT_S: Final = 120.0


@dataclass(frozen=True)
class Supervision:
    """How a job is looked after. Times in seconds.

    `counts` are the numbers of workers that it may run with; empty: that of its hosts alone.
    With `preload` local workers are forks of a process that has imported TensorFlow.
    """

    grace_s: float = 20.0
    restarts: RestartPolicy = field(default_factory=RestartPolicy)
    watch: WatchPolicy = field(default_factory=WatchPolicy)
    counts: tuple[int, ...] = ()
    preload: bool = False


@dataclass
class Supervisor:
    """Runs one job. `choose_cluster` gives addresses that are free, anew for each attempt.

    `passed_env` is set for all workers too, and may hold secrets: it is written nowhere.
    """

    spec: JobSpec
    backend: Backend
    hosts: Sequence[Host]
    run_dir: RunDir
    view: View
    choose_cluster: Callable[[Sequence[Host]], ClusterSpec]
    how: Supervision = field(default_factory=Supervision)
    injector: FaultInjector = field(default_factory=FaultInjector)
    passed_env: Mapping[str, str] = field(default_factory=dict)
    _endings: list[Ending] = field(default_factory=list)
    _recoveries: list[Recovery] = field(default_factory=list)
    _reason: str = ""
    _server: ForkServer | None = None
    _losses: LossCheck = field(default_factory=LossCheck)

    def run(self) -> JobResult:
        """Runs to the end; result.json holds what is returned."""
        agent.set_child_subreaper()
        began = time.monotonic()
        logs = WorkerLogs(self.run_dir.path / LOGS_FOLDER, self.spec.num_workers)
        try:
            with StopRequest() as stop, self._preloaded(stop):
                attempt = self._run_attempts(logs, stop)
        finally:
            logs.close()
            self.view.close()
        result = self._result(attempt, time.monotonic() - began)
        self.run_dir.write_result(result)
        return result

    @contextlib.contextmanager
    def _preloaded(self, stop: StopRequest) -> Iterator[None]:
        """Has a process ready that has imported TensorFlow, where workers can be its forks."""
        if not (self.how.preload and self.spec.train and self._runs_as_it_is()):
            yield
            return
        self._server = ForkServer(self.spec.env)
        try:
            self.view.note("importing TensorFlow, once for all workers")
            wait_until_ready(
                self._server, timeout_s=PRELOAD_TIMEOUT_S, stopped=lambda: stop.count > 0
            )
            yield
        finally:
            self._server.close()

    def _runs_as_it_is(self) -> bool:
        """Whether the back end runs programs on this machine, without anything around them."""
        plain = HostCommand(("x",))
        return all(self.backend.command(host, plain.argv, {}) == plain for host in self.hosts)

    def _spawn(self) -> AgentProcess | None:
        return self._server.spawn() if self._server and self._server.usable else None

    def _run_attempts(self, logs: WorkerLogs, stop: StopRequest) -> Attempt:
        hosts = self._muster()
        if not hosts:
            raise UserError(
                f"too few of the {len(self.hosts)} hosts answer: lower --min_workers, or see "
                "what 'tenfold doctor' says of them"
            )
        while True:
            attempt = self._attempt(hosts, logs, stop)
            self._note_recovery(attempt)
            if attempt.verdict is None or attempt.cancelled or stop.count:
                return attempt
            self._endings.append(Ending(attempt.verdict.first, attempt.verdict.preempted))
            hosts = self._hosts_to_go_on()
            if not hosts:
                return attempt

    def _hosts_to_go_on(self) -> tuple[Host, ...]:
        """Returns the hosts for another attempt; none where the job ends here."""
        decision = decide(self.how.restarts, self._endings)
        self._reason = decision.reason
        hosts = self._muster() if decision.go_on else ()
        if hosts:
            self.view.note(f"starting {len(hosts)} workers again: {decision.reason}")
            self._reason = ""
        elif decision.go_on:
            self._reason = "too few hosts are there for any permitted number of workers"
        return hosts

    def _muster(self) -> tuple[Host, ...]:
        restart = len(self._endings)
        return select_hosts(
            self.backend,
            self.hosts,
            self.how.counts or (len(self.hosts),),
            is_unavailable=lambda host: self.injector.is_unavailable(host, restart=restart),
        )

    def _attempt(self, hosts: Sequence[Host], logs: WorkerLogs, stop: StopRequest) -> Attempt:
        number = self.injector.restart = len(self._endings)
        cluster = self.choose_cluster(hosts)
        self.run_dir.write_job(replace(self.spec, num_workers=len(hosts)), cluster)
        logs.begin(f"restart {number}" if number else "start")
        starts = [self._start(cluster, host, index) for index, host in enumerate(hosts)]
        with self.injector.taken_ports(cluster):
            processes = WorkerProcesses(starts, spawn=self._spawn)
            attempt = Attempt(
                processes=processes,
                records=tuple(WorkerRecord(index) for index in range(len(starts))),
                view=self.view,
                logs=logs,
                stop=stop,
                watch=self.how.watch,
                grace_s=self.how.grace_s,
                failure_grace_s=self._failure_grace_s,
                injectors=(self.injector,),
            )
            try:
                with self.injector.at_hosts(self.backend, hosts):
                    attempt.run()
            finally:
                processes.close()
        return attempt

    @property
    def _failure_grace_s(self) -> float:
        return 0.0 if self.spec.train else min(FAILURE_GRACE_S, self.how.grace_s)

    def _start(self, cluster: ClusterSpec, host: Host, index: int) -> WorkerStart:
        env = {
            **self.passed_env,
            **worker_env(self.spec, cluster, index, restart=len(self._endings)),
            **no_proxy_for(os.environ, cluster.workers),
            **faults_to_env(self.injector.faults, worker=index, restart=self.injector.restart),
        }
        reads: dict[str, Any] = {
            "argv": list(self.spec.argv_on(host.python)),
            "env": env,
            "cwd": self.spec.cwd,
            "worker": index,
            "port": int(cluster.workers[index].rpartition(":")[2]),
            "heartbeat_timeout_s": HEARTBEAT_TIMEOUT_S if host.remote else 0,
        }
        return WorkerStart(index, self.backend.command(host, agent_argv(host), {}), reads)

    def _note_recovery(self, attempt: Attempt) -> None:
        """Notes what the job got over, and how long it took to the next step."""
        if self.injector.faults:
            self._losses.take(
                read_losses(self.run_dir.read(METRICS_FILE)), attempt.records[0].resumed_step
            )
        if not self._endings:
            return
        last = self._endings[-1]
        stepped = attempt.first_step_at
        seconds = round(stepped - last.failure.time, 3) if stepped else None
        self._recoveries.append(
            Recovery(last.failure, last.preempted, len(attempt.records), seconds)
        )

    def _result(self, attempt: Attempt, seconds: float) -> JobResult:
        verdict = attempt.verdict
        state = "cancelled" if attempt.cancelled else "failed" if verdict else "succeeded"
        return JobResult(
            state=state,
            exit_codes=tuple(record.exit_code for record in attempt.records),
            restarts=len(self._recoveries),
            first_failure=verdict.first if verdict else None,
            consequences=verdict.consequences if verdict else (),
            seconds=round(seconds, 3),
            final=attempt.final,
            recoveries=tuple(self._recoveries),
            reason=self._reason,
            notes=tuple(filter(None, [self._losses.sentence()])),
            signal=attempt.stop.signal if attempt.cancelled else None,
        )
