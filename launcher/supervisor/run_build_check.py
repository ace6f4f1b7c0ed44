"""Runs the check of a training (`launcher.worker.build_check`) before its workers start."""

import json
import time
from collections.abc import Callable, Mapping
from typing import Final

from tenfold.data.errors import UserError
from tenfold.launcher.backends.base import Host
from tenfold.launcher.job.events import UNEVEN_PARTS_ERROR
from tenfold.launcher.job.job_result import Failure
from tenfold.launcher.job.job_spec import HostCommand, JobSpec
from tenfold.launcher.job.worker_record import WorkerRecord
from tenfold.launcher.supervisor.verdict import to_failure
from tenfold.launcher.supervisor.worker_processes import (
    AgentProcess,
    WorkerProcesses,
    WorkerStart,
    agent_argv,
)
from tenfold.launcher.worker.build_check import CONFIG_VARIABLE
from tenfold.launcher.worker.python_argv import module_argv

CHECK_MODULE: Final = "tenfold.launcher.worker.build_check"
# A check that takes longer ends without a finding; the workers then report what is wrong.
CHECK_TIMEOUT_S: Final = 120.0
_POLL_S: Final = 0.1


def run_build_check(
    spec: JobSpec,
    host: Host,
    *,
    passed_env: Mapping[str, str],
    spawn: Callable[[], AgentProcess | None],
    stopped: Callable[[], bool],
) -> Failure | None:
    """Build the model in one process; return its failure, None if the training can start.

    Args:
      spec: the job of the built-in trainer.
      host: a host that is this machine.
      passed_env: further variables of the workers.
      spawn: forks the agent of the process.
      stopped: whether the launch was asked to stop; the check then ends.

    Raises:
      UserError: the model, the shards and the configuration do not fit together.
    """
    assert spec.train is not None
    env = {
        **passed_env,
        **spec.env,
        "TENFOLD_WORKER_INDEX": "0",
        "TENFOLD_NUM_WORKERS": str(spec.num_workers),
        "TENFOLD_RUN_DIR": spec.run_dir,
        "TENFOLD_RESTART": "0",
        CONFIG_VARIABLE: json.dumps(spec.train.to_json()),
    }
    agent_spec = {
        "argv": list(module_argv(CHECK_MODULE)),
        "env": env,
        "cwd": spec.cwd,
        "worker": 0,
        "port": 0,
        "heartbeat_timeout_s": 0,
    }
    start = WorkerStart(0, HostCommand(agent_argv(host)), agent_spec)
    record = _run(WorkerProcesses([start], spawn=spawn), stopped)
    if record.error is None:
        return None
    if record.error.type in (UserError.__name__, UNEVEN_PARTS_ERROR):
        raise UserError(record.error.message)
    return to_failure(record)


def _run(processes: WorkerProcesses, stopped: Callable[[], bool]) -> WorkerRecord:
    record = WorkerRecord(0)
    until = time.monotonic() + CHECK_TIMEOUT_S
    try:
        while processes.running and time.monotonic() < until and not stopped():
            for message in processes.poll(_POLL_S):
                if message.event is not None:
                    record.take_event(message.event, time.time())
                elif message.line is not None:
                    record.take_line(message.line, time.time())
    finally:
        processes.close()
    return record
