"""Supervisor side of `launch --inject`: carry out faults, check that losses repeat."""

import contextlib
import dataclasses
import math
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from tenfold.data.errors import UserError, did_you_mean
from tenfold.data.storage.folder import is_url
from tenfold.data.units import plural
from tenfold.launcher.backends.base import Backend, FaultyHosts, Host
from tenfold.launcher.job.faults import AT_HOST, KINDS, Fault
from tenfold.launcher.job.job_spec import ClusterSpec
from tenfold.launcher.job.worker_record import WorkerRecord
from tenfold.launcher.supervisor.worker_processes import WorkerProcesses

_SIGNALS: Final = {
    "kill": signal.SIGKILL,
    "lose": signal.SIGKILL,
    "stop": signal.SIGSTOP,
    "preempt": signal.SIGTERM,
}
_INTEGER_SETTINGS: Final = ("worker", "step", "restart", "restarts")


def parse_fault(text: str, *, num_workers: int) -> Fault:
    """Return the fault that a text such as ``kill:worker=1,step=50`` describes.

    Raises:
      UserError: there is no such kind, setting or worker, or a value is not a number.
    """
    kind, _, rest = text.partition(":")
    if kind not in KINDS:
        raise UserError(f"unknown fault '{kind}' in --inject={text}: {did_you_mean(kind, KINDS)}")
    names = [field.name for field in dataclasses.fields(Fault)][1:]
    values: dict[str, float] = {}
    for setting in filter(None, rest.split(",")):
        name, _, value = setting.partition("=")
        if name not in names:
            raise UserError(f"unknown setting '{name}' in --inject={text}: there are {names}")
        values[name] = _number(value, text)
    whole = {name: int(value) for name, value in values.items() if name in _INTEGER_SETTINGS}
    fault = Fault(kind, **{**values, **whole})  # type: ignore[arg-type]
    if fault.worker >= num_workers:
        raise UserError(f"--inject={text}: there is no worker {fault.worker} of {num_workers}")
    return fault


def _number(value: str, text: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not number >= 0:
        raise UserError(f"'{value}' in --inject={text} is not a number of 0 or more")
    return number


def check_backend(faults: Sequence[Fault], backend: Backend, name: str) -> None:
    """Check that faults of hosts can be injected on `backend`, called `name`.

    Raises:
      UserError: a fault needs simulated hosts.
    """
    for fault in faults:
        if fault.kind in AT_HOST and not isinstance(backend, FaultyHosts):
            raise UserError(
                f"--inject={fault.kind} is for simulated hosts, not for --backend={name}: "
                "give --backend=netns, or another fault"
            )


# When a fault of a host ends, on the monotonic clock, and the function that ends it.
FaultEnd = tuple[float, Callable[[], None]]


@dataclasses.dataclass
class HostFaultInjector:
    """Injects faults of whole hosts into one attempt, and ends each in time.

    Attributes:
      backend: simulated hosts.
      hosts: the host of each worker.
      lasting: the faults that outlast an attempt; later attempts get the same list.
    """

    backend: Backend
    hosts: Sequence[Host]
    lasting: list[FaultEnd]
    _ends: list[FaultEnd] = dataclasses.field(default_factory=list)

    def begin(self, fault: Fault) -> None:
        """Inject `fault` on the host of its worker."""
        assert isinstance(self.backend, FaultyHosts), "checked before the start"
        backend, host = self.backend, self.hosts[fault.worker]
        if fault.kind == "unplug":
            backend.unplug(host)
            end = backend.heal
        else:
            backend.freeze(host)
            end = backend.thaw
        until = math.inf if fault.seconds is None else time.monotonic() + fault.seconds
        # The processes of a frozen host can only be ended once it is thawed.
        lasts = fault.kind == "unplug" and fault.seconds is not None
        (self.lasting if lasts else self._ends).append((until, lambda: end(host)))

    def end(self, *, now: float) -> None:
        """End the faults that are due at `now` of the monotonic clock."""
        for ends in (self._ends, self.lasting):
            for entry in [entry for entry in ends if entry[0] <= now]:
                ends.remove(entry)
                entry[1]()

    def end_attempt(self) -> None:
        """End the faults that last no longer than the attempt, and those that are due."""
        self.end(now=time.monotonic())
        for _, end in self._ends:
            end()
        self._ends.clear()


class FaultInjector:
    """Injects each fault once, into the attempt numbered `restart` (from 0).

    The supervisor sets `restart` before each attempt and calls `act` during it, on one thread.
    """

    def __init__(self, faults: Sequence[Fault] = ()) -> None:
        self.faults = tuple(faults)
        self.restart = 0
        self._done: set[int] = set()
        self._at_hosts: HostFaultInjector | None = None
        self._lasting: list[FaultEnd] = []

    def act(self, records: Sequence[WorkerRecord], processes: WorkerProcesses) -> None:
        """Inject the faults that are due; called several times a second."""
        for number, fault in enumerate(self.faults):
            if number in self._done or not self._is_due(fault, records):
                continue
            self._done.add(number)
            if fault.kind == "disk_full":
                processes.limit_file_bytes(fault.worker, 0)
            elif fault.kind in _SIGNALS:
                processes.signal(fault.worker, _SIGNALS[fault.kind])
            elif fault.kind in AT_HOST and self._at_hosts:
                self._at_hosts.begin(fault)
        if self._at_hosts:
            self._at_hosts.end(now=time.monotonic())

    def _is_due(self, fault: Fault, records: Sequence[WorkerRecord]) -> bool:
        if fault.restart != self.restart or fault.worker >= len(records):
            return False
        record = records[fault.worker]
        reached = record.step is not None and record.step >= fault.step
        return not record.ended and record.pid is not None and (reached or fault.step == 0)

    def lost_workers(self, start: int) -> tuple[tuple[int, int], ...]:
        """Return (start, worker) of each worker whose host ``lose`` keeps away from `start`."""
        return tuple(
            (fault.restart, fault.worker)
            for number, fault in enumerate(self.faults)
            if fault.kind == "lose"
            and number in self._done
            and fault.restart < start <= fault.restart + fault.restarts
        )

    @contextlib.contextmanager
    def at_hosts(self, backend: Backend, hosts: Sequence[Host]) -> Iterator[None]:
        """Allow faults of `hosts`, by worker, within the context.

        Its exit ends them, but a host that is unplugged for a time stays so: other starts of the
        job can do without it.
        """
        self._at_hosts = HostFaultInjector(backend, hosts, self._lasting)
        try:
            yield
        finally:
            self._at_hosts.end_attempt()
            self._at_hosts = None

    @contextlib.contextmanager
    def taken_ports(self, cluster: ClusterSpec) -> Iterator[None]:
        """Listen on the ports of workers with the fault ``port``, within the context."""
        with contextlib.ExitStack() as stack:
            for fault in self.faults:
                if fault.kind == "port" and fault.restart == self.restart:
                    server = stack.enter_context(socket.socket())
                    address, _, port = cluster.workers[fault.worker].rpartition(":")
                    server.bind((address, int(port)))
                    server.listen()
            yield


def spoil_shards(shards: str, folder: Path, *, worker: int, num_workers: int) -> str:
    """Copy `shards` into `folder`, with one flipped bit in the first shard of `worker`.

    Shards other than that one are symbolic links.

    Returns:
      The path of `folder`.

    Raises:
      UserError: the shards are not on a local disk.
    """
    from tenfold.data.format.manifest import MANIFEST_NAME
    from tenfold.data.planning.lanes import deal_lanes, lanes_of_worker
    from tenfold.data.storage.read_manifest import read_manifest

    if is_url(shards):
        raise UserError("--inject=bad_shard needs shards on a local disk")
    manifest = read_manifest(shards)
    lanes = deal_lanes(manifest.split("train"), manifest.num_lanes)
    own = lanes_of_worker(worker, num_workers=num_workers, num_lanes=manifest.num_lanes)
    bad = lanes[own[0]].shards[0].name
    folder.mkdir(parents=True, exist_ok=True)
    for name in os.listdir(shards):
        target = folder / name
        target.unlink(missing_ok=True)
        if name in (bad, MANIFEST_NAME):
            shutil.copyfile(Path(shards, name), target)
        else:
            target.symlink_to(Path(shards, name))
    data = bytearray((folder / bad).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / bad).write_bytes(data)
    return str(folder)


def read_losses(metrics: bytes) -> dict[int, float]:
    """Return the losses in a metrics.jsonl by step; damaged lines are skipped."""
    from tenfold.models.metrics_line import StepMetrics, read_metrics_lines

    lines, _ = read_metrics_lines(metrics)
    return {line.step: line.loss for line in lines if isinstance(line, StepMetrics)}


class LossCheck:
    """Compares the losses of steps repeated after a restart with those before it."""

    def __init__(self) -> None:
        self._before: Mapping[int, float] = {}
        self._differences: list[float] = []

    def take(self, losses: Mapping[int, float], resumed_step: int) -> None:
        """Take the losses, by step, after an attempt that continued from `resumed_step`."""
        repeated = [step for step in losses if step > resumed_step and step in self._before]
        self._differences += [abs(losses[step] - self._before[step]) for step in repeated]
        self._before = losses

    def sentence(self) -> str:
        """Return the outcome in words, empty where no step was repeated."""
        if not self._differences:
            return ""
        how = (
            "equal"
            if max(self._differences) == 0
            else f"at most {max(self._differences):.2g} apart"
        )
        return (
            f"losses of {plural(len(self._differences), 'step')} repeated after a restart: {how}"
        )
