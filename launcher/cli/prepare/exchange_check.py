"""Runs all-reduces between the workers of a job before it starts, for `doctor`."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from tenfold.data.units import format_size, plural
from tenfold.launcher.backends.base import Backend, Host
from tenfold.launcher.host_checks.finding import ERROR, Finding
from tenfold.launcher.job.events import Result
from tenfold.launcher.job.job_spec import ClusterSpec, JobSpec
from tenfold.launcher.job.worker_record import WorkerRecord
from tenfold.launcher.supervisor.verdict import judge
from tenfold.launcher.supervisor.worker_processes import (
    WorkerProcesses,
    agent_argv,
    slot_of,
    worker_start,
)
from tenfold.launcher.worker.python_argv import module_argv

EXCHANGE_MODULE: Final = "tenfold.launcher.worker.exchange"
# Importing TensorFlow on a busy host takes longest.
TIMEOUT_S: Final = 120.0
# After the first worker's failure the others fail too, within this time.
SETTLE_S: Final = 2.0
_POLL_S: Final = 0.1


@dataclass(frozen=True)
class AllReduceTime:
    """What an all-reduce over all workers takes.

    Attributes:
      num_workers: the number of workers.
      num_bytes: the bytes that are summed.
      seconds: the mean time of an all-reduce.
    """

    num_workers: int
    num_bytes: int
    seconds: float

    @property
    def bits_per_s(self) -> float:
        """What each worker sends, by the ring algorithm: 2 (W - 1) / W of the bytes."""
        sent = 2 * (self.num_workers - 1) / self.num_workers * self.num_bytes
        return 8 * sent / self.seconds

    def sentence(self) -> str:
        """Return the figures as a sentence."""
        size, workers = format_size(self.num_bytes), plural(self.num_workers, "worker")
        took, rate = f"{1000 * self.seconds:,.1f} ms", f"{self.bits_per_s / 1e6:,.0f} Mbit/s"
        return f"an all-reduce of {size} over {workers} takes {took}: each sends {rate}"


def check_exchange(
    backend: Backend,
    hosts: Sequence[Host],
    cluster: ClusterSpec,
    spec: JobSpec,
    *,
    passed_env: Mapping[str, str],
) -> AllReduceTime | Finding:
    """Return what an all-reduce takes, or why the workers cannot do it.

    Args:
      backend: the back end, opened.
      hosts: the host of each worker.
      cluster: the addresses of the workers.
      spec: the job whose environment, folder and GPUs the workers get.
      passed_env: further variables of the workers.
    """
    spec = replace(spec, argv=module_argv(EXCHANGE_MODULE), num_workers=len(hosts), train=None)
    starts = [
        worker_start(
            spec,
            cluster,
            index,
            host,
            agent_command=backend.command(host, agent_argv(host), {}),
            passed_env=passed_env,
            slot=slot_of(hosts, index),
        )
        for index, host in enumerate(hosts)
    ]
    records = tuple(WorkerRecord(index) for index in range(len(hosts)))
    figures = _run(WorkerProcesses(starts), records)
    if figures:
        seconds = float(figures["seconds"]) / int(figures["rounds"])
        return AllReduceTime(len(hosts), int(figures["bytes"]), seconds)
    return _finding(records, [host.name for host in hosts])


def _run(processes: WorkerProcesses, records: Sequence[WorkerRecord]) -> Mapping[str, Any]:
    """Run the workers to their end; return the chief's figures, empty where it has none."""
    figures: Mapping[str, Any] = {}
    until = time.monotonic() + TIMEOUT_S
    try:
        while processes.running and time.monotonic() < until:
            for message in processes.poll(_POLL_S):
                record, now = records[message.worker], time.time()
                if message.event is not None:
                    record.take_event(message.event, now)
                    if isinstance(message.event.message, Result) and message.worker == 0:
                        figures = message.event.message.figures
                elif message.line is not None:
                    record.take_line(message.line, now)
                else:
                    record.mark_lost(now)
            if any(record.exit_code for record in records):
                until = min(until, time.monotonic() + SETTLE_S)
    finally:
        processes.close()
    return figures


def _finding(records: Sequence[WorkerRecord], names: Sequence[str]) -> Finding:
    verdict = judge(records)
    if verdict is None:
        waiting = ", ".join(dict.fromkeys(names[r.index] for r in records if not r.done))
        text = f"the workers did not exchange anything in {TIMEOUT_S:.0f} s (on {waiting}): open "
        text += "the workers' ports in the firewall, or name another --network_interface"
        return Finding(ERROR, "exchange", text)
    first = verdict.first
    text = f"worker {first.worker} on {names[first.worker]} cannot exchange with the others: "
    return Finding(ERROR, "exchange", text + first.error, host=names[first.worker])
