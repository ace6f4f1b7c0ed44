"""A member of a joined job: supervises the one worker of this host.

Somebody else starts the members: srun, mpirun, a container platform. A member runs its worker
under an agent, as any launch does, and exits with the worker's status, so that the platform
decides about restarts. The chief's member also writes result.json, from what all have reported.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tenfold.data.errors import JobError, UserError, os_error_text
from tenfold.data.storage.local_folder import replace_file
from tenfold.data.storage.open_folder import open_folder
from tenfold.launcher.backends.base import Host
from tenfold.launcher.display.view import View
from tenfold.launcher.display.worker_logs import WorkerLogs
from tenfold.launcher.job.events import EXIT_PEER_FAILED, EXIT_PREEMPTED
from tenfold.launcher.job.job_result import Failure, JobResult
from tenfold.launcher.job.job_spec import (
    ClusterSpec,
    HostCommand,
    JobSpec,
    job_to_json,
)
from tenfold.launcher.job.members.judge_members import judge_members
from tenfold.launcher.job.members.member_files import (
    MemberResult,
    member_job_file,
    member_result_file,
    to_json,
)
from tenfold.launcher.job.members.member_run_dir import MemberDir
from tenfold.launcher.job.run_dir import LOGS_FOLDER
from tenfold.launcher.job.worker_record import WorkerRecord
from tenfold.launcher.supervisor.attempt import FAILURE_GRACE_S, Attempt
from tenfold.launcher.supervisor.members.member_results import collect_results
from tenfold.launcher.supervisor.members.peer_watch import PeerWatch
from tenfold.launcher.supervisor.verdict import is_consequence
from tenfold.launcher.supervisor.watchdog import WatchPolicy
from tenfold.launcher.supervisor.worker_processes import (
    WorkerProcesses,
    WorkerStart,
    agent_argv,
    worker_start,
)
from tenfold.launcher.worker import agent
from tenfold.launcher.worker.stop_signals import StopRequest

EXIT_FAILED: Final = 1


@dataclass
class JobMember:
    """Runs one worker of a job, on the main thread.

    Attributes:
      spec: what every worker runs.
      cluster: the addresses of all workers.
      index: the index of this worker.
      host: this host.
      run_dir: the run directory, held by this process.
      view: shows the worker to a person.
      stop: the requests to stop this process, active.
      grace_s: seconds between SIGTERM and SIGKILL.
      watch: the limits of the watchdog.
      restart: how often the platform has restarted the job.
      passed_env: further environment variables of the worker.
      earlier: the results of an earlier start, which do not count.
    """

    spec: JobSpec
    cluster: ClusterSpec
    index: int
    host: Host
    run_dir: MemberDir
    view: View
    stop: StopRequest
    grace_s: float = 20.0
    watch: WatchPolicy = field(default_factory=WatchPolicy)
    restart: int = 0
    passed_env: Mapping[str, str] = field(default_factory=dict)
    earlier: Mapping[int, MemberResult] = field(default_factory=dict)

    def run(self) -> MemberResult:
        """Run the worker to its end; the run directory then holds the returned result.

        Raises:
          OSError, JobError: the run directory cannot be written to.
        """
        agent.set_child_subreaper()
        started_at = time.monotonic()
        folder = open_folder(self.run_dir.where)
        folder.remove(member_result_file(self.index))
        self.run_dir.write_job(self.spec, self.cluster)
        logs = WorkerLogs(self.run_dir.path / LOGS_FOLDER, (self.index,))
        try:
            logs.begin(f"restart {self.restart}" if self.restart else "start")
            attempt = self._attempt(logs)
        finally:
            logs.close()
        result = self._result(attempt, time.monotonic() - started_at)
        try:
            folder.write(member_result_file(self.index), to_json(result))
        except (OSError, JobError, UserError) as error:
            # The exit status says the most important part, and must not be lost.
            self.view.note(f"the result cannot be written to {self.run_dir.where}: {error}")
        return result

    def _attempt(self, logs: WorkerLogs) -> Attempt:
        folder = open_folder(self.run_dir.where)
        peers = PeerWatch(
            folder,
            index=self.index,
            num_workers=self.cluster.num_workers,
            earlier=self.earlier,
        )
        processes = WorkerProcesses([self._start()])
        attempt = Attempt(
            processes=processes,
            records=(WorkerRecord(self.index),),
            view=self.view,
            logs=logs,
            stop=self.stop,
            watch=self.watch,
            grace_s=self.grace_s,
            failure_grace_s=0.0 if self.spec.train else min(FAILURE_GRACE_S, self.grace_s),
            injectors=(peers,),
        )
        try:
            attempt.run()
        finally:
            processes.close()
            peers.close()
        return attempt

    def _start(self) -> WorkerStart:
        argv = self.spec.argv_on(self.host.python)
        if self.spec.train:
            argv = (*argv, str(self._save_job()))
        return worker_start(
            self.spec,
            self.cluster,
            self.index,
            self.host,
            agent_command=HostCommand(agent_argv(self.host)),
            passed_env=self.passed_env,
            argv=argv,
            restart=self.restart,
        )

    def _save_job(self) -> Path:
        """Write the job for this member's trainer, which may start before the chief's member."""
        path = self.run_dir.path / member_job_file(self.index)
        replace_file(path, job_to_json(self.spec, self.cluster).encode())
        return path.resolve()

    def _result(self, attempt: Attempt, seconds: float) -> MemberResult:
        (record,) = attempt.records
        failure = attempt.verdict.first if attempt.verdict else None
        return MemberResult(
            worker=self.index,
            exit_code=record.exit_code,
            status=exit_status(record, failure, signal_number=self.stop.signal),
            cancelled=attempt.cancelled,
            failure=failure,
            seconds=round(seconds, 3),
            final=attempt.final,
        )

    def conclude(self, result: MemberResult) -> JobResult | None:
        """As the chief, write result.json from what all members report within a short time.

        Returns:
          The job's result; None for another member.

        Raises:
          JobError: result.json could not be written or uploaded.
        """
        run_dir = self.run_dir.run_dir
        if run_dir is None:
            return None
        folder = open_folder(self.run_dir.where)
        members = collect_results(
            folder, result, num_workers=self.cluster.num_workers, earlier=self.earlier
        )
        job = judge_members(members, self.cluster.num_workers, signal=self.stop.signal)
        try:
            run_dir.write_result(job)
        except OSError as error:
            raise JobError(f"result.json cannot be written: {os_error_text(error)}") from error
        return job


def exit_status(
    record: WorkerRecord, failure: Failure | None, *, signal_number: int | None = None
) -> int:
    """Return the exit status of the member whose worker has ended.

    EXIT_PEER_FAILED if its last output blames another worker (see `verdict`), so that a platform
    does not count that as a second crash. The built-in trainer exits with it by itself.

    Args:
      record: the worker's record.
      failure: how it failed, None where it did not.
      signal_number: the signal by which this process was asked to stop.
    """
    code = record.exit_code
    if code in (0, EXIT_PREEMPTED) and (failure is None or code):
        return code
    if failure is None and signal_number is not None:
        return 128 + signal_number
    if failure is not None and is_consequence(record):
        return EXIT_PEER_FAILED
    return 128 - code if code is not None and code < 0 else code or EXIT_FAILED
