"""Supervisor side of `launch --inject`: carry out faults, check that losses repeat."""

import contextlib
import dataclasses
import json
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
from tenfold.data.format.manifest import MANIFEST_NAME
from tenfold.data.planning.lanes import deal_lanes
from tenfold.data.storage.folder import is_url
from tenfold.data.storage.read_manifest import read_manifest
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
_WHOLE: Final = ("worker", "step", "restart", "restarts")


def parse_fault(text: str, *, num_workers: int) -> Fault:
    """Returns the fault of ``kill:worker=1,step=50``.

    Raises:
      UserError: no such kind or setting, a value that is no number, or no such worker.
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
    whole = {name: int(value) for name, value in values.items() if name in _WHOLE}
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
    """Checks that the hosts of `backend`, called `name`, can have these faults.

    Raises:
      UserError: they cannot.
    """
    for fault in faults:
        if fault.kind in AT_HOST and not isinstance(backend, FaultyHosts):
            raise UserError(
                f"--inject={fault.kind} is for simulated hosts, not for --backend={name}: "
                "give --backend=netns, or another fault"
            )


@dataclasses.dataclass
class HostFaultInjector:
    """Faults of whole hosts that are at work in an attempt, and how each is ended."""

    backend: Backend
    hosts: Sequence[Host]
    _ends: list[tuple[float, Callable[[], None]]] = dataclasses.field(default_factory=list)

    def begin(self, fault: Fault) -> None:
        """Carries `fault` out on the host of its worker."""
        assert isinstance(self.backend, FaultyHosts), "checked before the start"
        backend, host = self.backend, self.hosts[fault.worker]
        if fault.kind == "unplug":
            backend.unplug(host)
            end = backend.heal
        else:
            backend.freeze(host)
            end = backend.thaw
        until = math.inf if fault.seconds is None else time.monotonic() + fault.seconds
        self._ends.append((until, lambda: end(host)))

    def end(self, *, now: float) -> None:
        """Ends those whose time, of the monotonic clock, has come; all at infinity."""
        due = [entry for entry in self._ends if entry[0] <= now]
        for entry in due:
            self._ends.remove(entry)
            entry[1]()


class FaultInjector:
    """Carries out faults on the running attempt, each once."""

    def __init__(self, faults: Sequence[Fault] = ()) -> None:
        self.faults = tuple(faults)
        self.restart = 0
        self._done: set[int] = set()
        self._at_hosts: HostFaultInjector | None = None

    def act(self, records: Sequence[WorkerRecord], processes: WorkerProcesses) -> None:
        """Does what is due; called several times a second."""
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

    def is_unavailable(self, worker: int, *, restart: int) -> bool:
        """Says whether the host of `worker` has been taken away for attempt `restart`."""
        return any(
            fault.kind == "lose"
            and fault.worker == worker
            and fault.restart < restart <= fault.restart + fault.restarts
            for fault in self.faults
        )

    @contextlib.contextmanager
    def at_hosts(self, backend: Backend, hosts: Sequence[Host]) -> Iterator[None]:
        """Lets faults strike `hosts`, the workers' in this attempt; ends what is left of them."""
        self._at_hosts = HostFaultInjector(backend, hosts)
        try:
            yield
        finally:
            self._at_hosts.end(now=math.inf)
            self._at_hosts = None

    @contextlib.contextmanager
    def taken_ports(self, cluster: ClusterSpec) -> Iterator[None]:
        """Holds the ports of the workers that should find theirs taken."""
        with contextlib.ExitStack() as stack:
            for fault in self.faults:
                if fault.kind == "port" and fault.restart == self.restart:
                    server = stack.enter_context(socket.socket())
                    address, _, port = cluster.workers[fault.worker].rpartition(":")
                    server.bind((address, int(port)))
                    server.listen()
            yield


def spoil_shards(shards: str, folder: Path, *, worker: int, num_workers: int) -> str:
    """Makes `folder` look like `shards`, but for one flipped bit in the first shard that
    `worker` trains on; returns its path.

    Raises:
      UserError: the shards are not on a local disk.
    """
    if is_url(shards):
        raise UserError("--inject=bad_shard needs shards on a local disk")
    manifest = read_manifest(shards)
    lanes = deal_lanes(manifest.split("train"), manifest.num_lanes)
    bad = lanes[worker * manifest.num_lanes // num_workers].shards[0].name
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
    """Returns the losses by step that a metrics.jsonl holds."""
    losses = {}
    for line in metrics.splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            entry = json.loads(line)
            if entry.get("kind") == "step":
                losses[int(entry["step"])] = float(entry["loss"])
    return losses


class LossCheck:
    """Compares the losses of steps that are run again after a restart with those before it."""

    def __init__(self) -> None:
        self._before: Mapping[int, float] = {}
        self._apart: list[float] = []

    def take(self, losses: Mapping[int, float], resumed_step: int) -> None:
        """Takes what an attempt leaves, which has gone on from `resumed_step`."""
        again = [step for step in losses if step > resumed_step and step in self._before]
        self._apart += [abs(losses[step] - self._before[step]) for step in again]
        self._before = losses

    def sentence(self) -> str:
        """Returns what the comparison says; empty where no step was run again."""
        if not self._apart:
            return ""
        how = "equal" if max(self._apart) == 0 else f"at most {max(self._apart):.2g} apart"
        return f"losses of {len(self._apart)} steps repeated after a restart: {how}"
