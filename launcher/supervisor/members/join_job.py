"""Join a job that somebody else starts: find the cluster, then run this host's worker."""

import hashlib
import json
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from tenfold.data.errors import UserError
from tenfold.data.planning.cluster_task import ClusterTask
from tenfold.data.storage.open_folder import open_folder
from tenfold.launcher.backends.base import Host
from tenfold.launcher.backends.ports import check_port, pick_ports
from tenfold.launcher.display.history import HistoryView
from tenfold.launcher.display.view import View
from tenfold.launcher.job.environment_file import write_environment_file
from tenfold.launcher.job.job_result import JobResult
from tenfold.launcher.job.job_spec import ClusterSpec, JobSpec
from tenfold.launcher.job.members.member_files import (
    Introduction,
    MemberResult,
    introduction_file,
    to_json,
)
from tenfold.launcher.job.members.member_run_dir import MemberDir
from tenfold.launcher.supervisor.cancel_watch import CancelWatch
from tenfold.launcher.supervisor.members.meeting import Meeting, new_nonce
from tenfold.launcher.supervisor.members.member import JobMember
from tenfold.launcher.supervisor.members.member_results import read_results
from tenfold.launcher.supervisor.watchdog import WatchPolicy
from tenfold.launcher.worker.stop_signals import StopRequest

# The port of TFJob and Vertex AI, for hosts of one worker each whose platform gives no ports.
DEFAULT_PORT: Final = 2222
# An address of the documentation range (RFC 5737). Nothing is sent: connecting a UDP socket
# only chooses the route, and with it the address of this host.
_ANY_REMOTE: Final = ("192.0.2.1", 9)


@dataclass(frozen=True)
class Joining:
    """One member, complete before anything starts.

    Attributes:
      spec: what every worker runs.
      task: which worker this process is, and what is known of the others.
      address: this host's address for its peers; "" finds it.
      first_port: worker N listens on this port + N; None: on a free one.
      grace_s: seconds between SIGTERM and SIGKILL.
      watch: the limits of the watchdog; its `rendezvous_timeout_s` limits the meeting too.
      restart: how often the platform has restarted the job.
      passed_env: further environment variables of the worker.
    """

    spec: JobSpec
    task: ClusterTask
    address: str = ""
    first_port: int | None = None
    grace_s: float = 20.0
    watch: WatchPolicy = field(default_factory=WatchPolicy)
    restart: int = 0
    passed_env: Mapping[str, str] = field(default_factory=dict)


def known_cluster(joining: Joining) -> ClusterSpec | None:
    """Return the cluster if the surroundings give it; None where the members have to meet.

    Raises:
      UserError: an address has no port, or --port contradicts the addresses.
    """
    task, port = joining.task, joining.first_port
    if task.addresses:
        if port is not None:
            raise UserError(f"--port={port}: {task.source} gives the ports already")
        for address in task.addresses:
            if not address.rpartition(":")[2].isdecimal():
                raise UserError(f"{task.source}: '{address}' has no port: write host:port")
        return ClusterSpec(task.addresses)
    if task.hosts:
        return ClusterSpec(tuple(f"{host}:{port or DEFAULT_PORT}" for host in task.hosts))
    return ClusterSpec((_own_address(joining),)) if task.num_workers == 1 else None


def _own_address(joining: Joining) -> str:
    """Return ``host:port`` for this worker."""
    host = joining.address or host_address()
    if joining.first_port is None:
        return f"{host}:{pick_ports(host, 1)[0]}"
    port = joining.first_port + joining.task.index
    check_port(port, joining.task.index)
    return f"{host}:{port}"


def host_address() -> str:
    """Return the address by which other hosts can reach this one, as far as can be told."""
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(_ANY_REMOTE)
        address: str = probe.getsockname()[0]
        return address
    with suppress(OSError):
        return socket.gethostbyname(socket.gethostname())
    return "127.0.0.1"


def join(joining: Joining, view: View) -> tuple[int, JobResult | None]:
    """Run this member to its end; return its exit status, and for the chief the job's result.

    Raises:
      UserError: the run directory or an address cannot be used.
      JobError: another member has not come, or runs another job; or storage fails.
    """
    index = joining.task.index
    train = joining.spec.train
    epochs = train.epochs if train else None
    run_dir = MemberDir(joining.spec.run_dir, index, note=view.note, epochs=epochs)
    try:
        with StopRequest() as stop, CancelWatch(run_dir.where, stop, is_chief=index == 0):
            # Read before this member introduces itself: where members meet, none can have ended.
            earlier = read_results(open_folder(run_dir.where), joining.task.num_workers)
            cluster = _find_cluster(joining, run_dir, view, stop)
            if cluster is None:
                return 128 + (stop.signal or 0), None
            hosts = [address.rpartition(":")[0] for address in cluster.workers]
            recorded = HistoryView(view, run_dir.history, hosts=hosts)
            if index == 0:
                write_environment_file(run_dir.path)
            member = JobMember(
                spec=joining.spec,
                cluster=cluster,
                index=index,
                host=Host(socket.gethostname(), hosts[index], sys.executable),
                run_dir=run_dir,
                view=recorded,
                stop=stop,
                grace_s=joining.grace_s,
                watch=joining.watch,
                restart=joining.restart,
                passed_env=joining.passed_env,
                earlier=_not_of_this_start(earlier, joining),
            )
            try:
                result = member.run()
                return result.status, member.conclude(result)
            finally:
                recorded.close()
    finally:
        run_dir.close()


def _not_of_this_start(
    earlier: Mapping[int, MemberResult], joining: Joining
) -> dict[int, MemberResult]:
    """Return the results that an earlier start has left.

    Where members do not meet, a short program may have succeeded before this member came.
    """
    has_met = known_cluster(joining) is None
    return {index: each for index, each in earlier.items() if has_met or each.status != 0}


def _find_cluster(
    joining: Joining, run_dir: MemberDir, view: View, stop: StopRequest
) -> ClusterSpec | None:
    """Return the cluster, introducing this member to the others; None if asked to stop."""
    folder, task = open_folder(run_dir.where), joining.task
    known = known_cluster(joining)
    own = Introduction(
        nonce=new_nonce(),
        chief="",
        num_workers=task.num_workers,
        host=socket.gethostname(),
        address=known.workers[task.index] if known else _own_address(joining),
        job=_digest(joining.spec),
    )
    if known is not None:
        folder.write(introduction_file(task.index), to_json(own))
        return known
    return Meeting(
        folder, task.index, own, joining.watch.rendezvous_timeout_s, lambda: stop.count > 0,
        view.note,
    ).run()  # fmt: skip


def _digest(spec: JobSpec) -> str:
    """Return a text that differs between jobs that cannot run together."""
    train = spec.train.to_json() if spec.train else {}
    same = {name: value for name, value in train.items() if name != "working_dir"}
    job = [same] if train else list(spec.argv)
    return hashlib.sha256(json.dumps(job, sort_keys=True, default=str).encode()).hexdigest()[:16]
