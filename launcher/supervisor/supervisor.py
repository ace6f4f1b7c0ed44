"""The supervisor: runs a job through its attempts to its end, and returns its result."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from tenfold.data.errors import UserError, os_error_text
from tenfold.data.units import plural
from tenfold.launcher.backends.base import Backend, Host
from tenfold.launcher.display.view import View
from tenfold.launcher.display.worker_logs import WorkerLogs
from tenfold.launcher.job.events import UNEVEN_PARTS_ERROR
from tenfold.launcher.job.faults import faults_to_env
from tenfold.launcher.job.history.goodput import Goodput
from tenfold.launcher.job.history.history_line import Resized
from tenfold.launcher.job.job_result import Failure, JobResult, Recovery, SizeChange
from tenfold.launcher.job.job_spec import ClusterSpec, HostCommand, JobSpec
from tenfold.launcher.job.run_dir import LOGS_FOLDER, METRICS_FILE, RunDir
from tenfold.launcher.job.worker_record import WorkerRecord
from tenfold.launcher.supervisor.attempt import FAILURE_GRACE_S, Attempt
from tenfold.launcher.supervisor.cancel_watch import CancelWatch
from tenfold.launcher.supervisor.fault_injection import FaultInjector, LossCheck, read_losses
from tenfold.launcher.supervisor.hosts.job_hosts import Choice, HostPolicy, JobHosts
from tenfold.launcher.supervisor.restarts import Ending, RestartPolicy, decide
from tenfold.launcher.supervisor.watchdog import WatchPolicy
from tenfold.launcher.supervisor.worker_processes import (
    AgentProcess,
    WorkerProcesses,
    WorkerStart,
    agent_argv,
    slot_of,
    worker_start,
)
from tenfold.launcher.worker import agent
from tenfold.launcher.worker.forkserver import ForkServer, wait_until_ready
from tenfold.launcher.worker.stop_signals import StopRequest

if TYPE_CHECKING:
    from tenfold.launcher.supervisor.hosts.host_servers import HostServers

PRELOAD_TIMEOUT_S: Final = 120.0
START_TIMEOUT_S: Final = 20.0  # of a server that preloads nothing


@dataclass(frozen=True)
class Supervision:
    """How a job is supervised.

    Attributes:
      grace_s: seconds between SIGTERM and SIGKILL.
      restarts: the budgets for restarts.
      watch: the limits of the watchdog.
      counts: permitted numbers of workers; empty: the number of hosts alone.
      regrow_after_s: the shortest time between two growths of the job; 0: it never grows.
      preload: fork workers from a process on their host that has imported TensorFlow.
    """

    grace_s: float = 20.0
    restarts: RestartPolicy = field(default_factory=RestartPolicy)
    watch: WatchPolicy = field(default_factory=WatchPolicy)
    counts: tuple[int, ...] = ()
    regrow_after_s: float = 0.0
    preload: bool = False


@dataclass
class Supervisor:
    """Runs one job, on the main thread.

    Attributes:
      spec: what to run.
      backend: where to run it.
      hosts: one host per worker of the full job.
      spares: hosts that stand by.
      run_dir: the run directory, held by this process.
      view: shows the job to a person.
      choose_cluster: returns free addresses on hosts; called for each attempt.
      how: how the job is supervised.
      injector: the faults to inject.
      passed_env: environment variables of all workers that may hold secrets, and are therefore
        never written to a file.
      measure: returns the goodput of a job that ended in a state after some seconds.
    """

    spec: JobSpec
    backend: Backend
    hosts: Sequence[Host]
    run_dir: RunDir
    view: View
    choose_cluster: Callable[[Sequence[Host]], ClusterSpec]
    how: Supervision = field(default_factory=Supervision)
    spares: Sequence[Host] = ()
    injector: FaultInjector = field(default_factory=FaultInjector)
    passed_env: Mapping[str, str] = field(default_factory=dict)
    measure: Callable[[str, float], Goodput | None] = lambda state, seconds: None
    _endings: list[Ending] = field(default_factory=list)
    _recoveries: list[Recovery] = field(default_factory=list)
    _resizes: list[SizeChange] = field(default_factory=list)
    _starts: int = 0
    _resized_for: int = 0  # the number of starts with the one that follows the last resize
    _reason: str = ""
    _server: ForkServer | None = None
    _host_servers: "HostServers | None" = None
    _losses: LossCheck = field(default_factory=LossCheck)

    def run(self) -> JobResult:
        """Run the job to its end; result.json then holds the returned result.

        If this process cannot write its logs, because the disk is full, the job has failed.
        """
        agent.set_child_subreaper()
        started_at = time.monotonic()
        logs = WorkerLogs(self.run_dir.path / LOGS_FOLDER, range(self.spec.num_workers))
        try:
            with (
                StopRequest() as stop,
                CancelWatch(self.run_dir.where, stop),
                self._preloaded(stop),
            ):
                failure = self._check_build(stop)
                attempt = None if failure else self._run_attempts(logs, stop)
            seconds = time.monotonic() - started_at
            if attempt is not None:
                result = self._result(attempt, seconds)
            else:
                result = self._unstarted_result(failure, seconds)
        except OSError as error:
            result = self._failed_result(error, time.monotonic() - started_at)
        finally:
            logs.close()
            self.view.close()
        result = replace(result, goodput=self.measure(result.state, result.seconds))
        self.run_dir.write_result(result)
        return result

    @contextlib.contextmanager
    def _preloaded(self, stop: StopRequest) -> Iterator[None]:
        """Keep fork servers within the context: on this machine, or on each host."""

        def is_stopped() -> bool:
            self.view.wait("importing TensorFlow, once for all workers")
            return stop.count > 0

        if self._runs_unwrapped() and sys.platform == "linux":
            preloaded = self._preloads
            self._server = ForkServer.preloaded(self.spec.env) if preloaded else ForkServer.plain()
            try:
                if preloaded:
                    wait_until_ready(self._server, timeout_s=PRELOAD_TIMEOUT_S, stopped=is_stopped)
                yield
            finally:
                self._server.close()
        elif self._preloads:
            from tenfold.launcher.supervisor.hosts.host_servers import host_servers

            with host_servers(
                self.backend, self.hosts, self.spec.env, spares=self.spares,
                timeout_s=PRELOAD_TIMEOUT_S, stopped=is_stopped,
            ) as self._host_servers:  # fmt: skip
                yield
        else:
            yield

    @property
    def _preloads(self) -> bool:
        """Whether the workers are forks of a process that has imported TensorFlow."""
        return self.how.preload and self.spec.train is not None

    def _check_build(self, stop: StopRequest) -> Failure | None:
        """Build the model once, in a fork of the server; return its failure, or None.

        Where workers cannot be forks they report such failures themselves: importing TensorFlow
        for the check alone would take as long as the start of a worker.
        """
        if not (self._preloads and self._server and self._server.usable):
            return None
        from tenfold.launcher.supervisor.run_build_check import run_build_check

        failure = run_build_check(
            self.spec,
            self.hosts[0],
            passed_env=self.passed_env,
            spawn=self._spawn,
            stopped=lambda: stop.count > 0,
        )
        if failure:
            self.run_dir.write_job(self.spec, self.choose_cluster(self.hosts))
        return failure

    def _runs_unwrapped(self) -> bool:
        """Whether the back end runs programs on this machine without wrapping their argv."""
        plain = HostCommand(("x",))
        return all(self.backend.command(host, plain.argv, {}) == plain for host in self.hosts)

    def _spawn(self) -> AgentProcess | None:
        """Fork an agent from the server; None where agents are subprocesses.

        A plain server has been left to start meanwhile; one that preloads has been waited for.
        """
        timeout_s = 0.0 if self._preloads else START_TIMEOUT_S
        if self._server is None or not self._server.wait_ready(timeout_s):
            return None
        return self._server.spawn()

    def _run_attempts(self, logs: WorkerLogs, stop: StopRequest) -> Attempt:
        counts = self.how.counts or (len(self.hosts),)
        job_hosts = JobHosts(
            self.backend,
            (*self.hosts, *self.spares),
            HostPolicy(counts, self.how.regrow_after_s),
            self.injector.lost_workers,
        )
        choice = self._choose_hosts(job_hosts)
        hosts = choice.hosts
        if choice.reason:
            self._note_resize(choice, stopped_at=time.time(), step=None)
        if not hosts:
            raise UserError(
                f"too few of the {len(self.hosts)} hosts answer: lower --min_workers, or find the "
                "reason with 'tenfold doctor'"
            )
        while True:
            with job_hosts.watch() as watch:
                attempt = self._attempt(hosts, logs, stop, find_growth=watch.find_growth)
            self._note_recovery(attempt)
            if attempt.cancelled or stop.count or not (attempt.verdict or attempt.stopped_to_grow):
                return attempt
            hosts = self._hosts_after(attempt, job_hosts)
            if not hosts:
                return attempt

    def _hosts_after(self, attempt: Attempt, job_hosts: JobHosts) -> tuple[Host, ...]:
        """Return the hosts for another attempt, none if the job ends here."""
        cause = ""
        if attempt.verdict and not _can_change_hosts(attempt, job_hosts):
            self._endings.append(Ending(attempt.verdict.first, attempt.verdict.preempted))
            decision = decide(self.how.restarts, self._endings)
            self._reason, cause = decision.reason, decision.reason
            if not decision.restart:
                return ()
        choice = self._choose_hosts(job_hosts)
        if not choice.hosts:
            self._reason = "too few hosts answer for any permitted number of workers"
            return ()
        self._reason = ""
        if choice.reason:
            steps = [record.step for record in attempt.records if record.step is not None]
            first = attempt.verdict.first if attempt.verdict else None
            stopped_at = first.time if first else attempt.stopped_at
            self._note_resize(choice, stopped_at=stopped_at, step=max(steps, default=None))
        number = plural(len(choice.hosts), "worker")
        self.view.note(f"restarting with {number}" + (f": {cause}" if cause else ""))
        return choice.hosts

    def _choose_hosts(self, job_hosts: JobHosts) -> Choice:
        choice = job_hosts.choose()
        for note in choice.notes:
            self.view.note(note)
        return choice

    def _note_resize(self, choice: Choice, *, stopped_at: float, step: int | None) -> None:
        change = SizeChange(stopped_at, choice.before, len(choice.hosts), choice.reason, step)
        self._resizes.append(change)
        self._resized_for = self._starts + 1
        names = tuple(host.name for host in choice.hosts)
        self.view.resized(Resized(change.before, change.num_workers, names, change.sentence))

    def _attempt(
        self,
        hosts: Sequence[Host],
        logs: WorkerLogs,
        stop: StopRequest,
        *,
        find_growth: Callable[[], str],
    ) -> Attempt:
        if self._host_servers:
            # Hosts may have joined or come back; without a change this returns at once.
            self._host_servers.start(hosts)
            self._host_servers.wait(hosts, PRELOAD_TIMEOUT_S, stopped=lambda: stop.count > 0)
        number = self.injector.restart = self._starts
        self._starts += 1
        cluster = self.choose_cluster(hosts)
        self.run_dir.write_job(replace(self.spec, num_workers=len(hosts)), cluster)
        logs.begin(f"restart {number}" if number else "start")
        starts = [self._start(cluster, hosts, index) for index in range(len(hosts))]
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
                find_growth=find_growth,
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

    def _start(self, cluster: ClusterSpec, hosts: Sequence[Host], index: int) -> WorkerStart:
        host, restart = hosts[index], self.injector.restart
        server = self._host_servers.socket_of(host) if self._host_servers else ""
        return worker_start(
            self.spec,
            cluster,
            index,
            host,
            agent_command=self.backend.command(host, agent_argv(host, server), {}),
            passed_env=self.passed_env,
            slot=slot_of(hosts, index),
            restart=restart,
            more_env=faults_to_env(self.injector.faults, worker=index, restart=restart),
        )

    def _note_recovery(self, attempt: Attempt) -> None:
        """Note what came before `attempt`, and the time from it to the next step."""
        if self.injector.faults:
            self._losses.take(
                read_losses(self.run_dir.read(METRICS_FILE)), attempt.records[0].resumed_step
            )
        step_at = attempt.first_step_at
        if self._resizes and self._resized_for == self._starts and step_at:
            seconds = round(step_at - self._resizes[-1].time, 3)
            self._resizes[-1] = replace(self._resizes[-1], seconds=seconds)
        if len(self._endings) > len(self._recoveries):
            last = self._endings[-1]
            seconds_after = round(step_at - last.failure.time, 3) if step_at else None
            self._recoveries.append(
                Recovery(last.failure, last.preempted, len(attempt.records), seconds_after)
            )

    def _failed_result(self, error: OSError, seconds: float) -> JobResult:
        """Return the result of a job that ended because of an error of this process."""
        return JobResult(
            state="failed",
            exit_codes=(None,) * self.spec.num_workers,
            restarts=len(self._recoveries),
            seconds=round(seconds, 3),
            recoveries=tuple(self._recoveries),
            resizes=tuple(self._resizes),
            notes=(f"the launcher had to stop the workers: {os_error_text(error)}",),
        )

    def _unstarted_result(self, failure: Failure | None, seconds: float) -> JobResult:
        """Return the result of a job whose model could not be built."""
        return JobResult(
            state="failed",
            exit_codes=(None,) * self.spec.num_workers,
            first_failure=failure,
            seconds=round(seconds, 3),
        )

    def _result(self, attempt: Attempt, seconds: float) -> JobResult:
        verdict = attempt.verdict
        is_failed = verdict is not None or attempt.stopped_to_grow  # and could not start again
        state = "cancelled" if attempt.cancelled else "failed" if is_failed else "succeeded"
        return JobResult(
            state=state,
            exit_codes=tuple(record.exit_code for record in attempt.records),
            restarts=len(self._recoveries),
            first_failure=verdict.first if verdict else None,
            consequences=verdict.consequences if verdict else (),
            seconds=round(seconds, 3),
            final=attempt.final,
            recoveries=tuple(self._recoveries),
            resizes=tuple(self._resizes),
            reason=self._reason,
            notes=tuple(filter(None, [self._losses.sentence(), _not_finite_note(attempt)])),
            signal=attempt.stop.signal if attempt.cancelled else None,
        )


def _can_change_hosts(attempt: Attempt, job_hosts: JobHosts) -> bool:
    """Whether the hosts alone made a start fail, and the job can go on with others.

    That uses up no restart.
    """
    if not attempt.failed_at_start:
        return False
    assert attempt.verdict is not None
    if attempt.verdict.first.error.startswith(UNEVEN_PARTS_ERROR):
        return job_hosts.give_up_count()
    return job_hosts.leave_out(attempt.failed_worker)


def _not_finite_note(attempt: Attempt) -> str:
    """Return the note on values that are not finite and did not end the job as a failure."""
    found = attempt.records[0].not_finite
    if found is None or found.is_skipped or attempt.verdict is not None:
        return ""  # the figures count skipped steps, the verdict names a failure
    return found.sentence
