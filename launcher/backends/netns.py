"""Simulated hosts: each worker in its own network, mount and host-name namespaces.

The hosts are connected to one switch (a bridge). Each has its own address, name and loopback. The
network has no route to the outside.
"""

import contextlib
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from tenfold.data.errors import UserError
from tenfold.data.units import parse_size
from tenfold.launcher.backends import netns_keeper
from tenfold.launcher.backends.base import Backend, Host, Option
from tenfold.launcher.backends.cgroups import HostLimits, plan_cgroups, plan_freezer
from tenfold.launcher.backends.ports import numbered_ports
from tenfold.launcher.job.job_spec import HostCommand
from tenfold.launcher.worker.stop_signals import ignore_stop_requests

OPTIONS: Final = (
    Option("host_bandwidth", "bandwidth of a simulated host in each direction: 100mbit, 1gbit"),
    Option("host_latency", "delay of every packet that a simulated host sends: 2ms, 500us"),
    Option("host_cpus", "cores of a simulated host: 1, 0.5"),
    Option("host_memory", "memory of a simulated host: 2GB"),
)

MAX_HOSTS: Final = 1000  # a bridge has 1023 ports
PREFIX: Final = 16
SWITCH: Final = "10.83.255.254"
PORT: Final = 2222
_RATE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([kmg]?)bit", re.IGNORECASE)
_TIME: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(us|ms|s)")
_SCALE: Final = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
_MICROSECONDS: Final = {"us": 1, "ms": 10**3, "s": 10**6}

# Moves itself into control groups, then runs the command; "$@" is the groups, "--", the command.
_JOIN: Final = 'while [ "$1" != -- ]; do echo $$ >"$1/cgroup.procs"; shift; done; shift; exec "$@"'

_HINTS: Final = {
    "unshare": "run as root with CAP_SYS_ADMIN, allow user namespaces, or use --backend=local",
    "mount": "run as root with CAP_SYS_ADMIN, or use --backend=local",
    "cgroup": "run as root where /sys/fs/cgroup is writable, or leave --host_cpus and "
    "--host_memory out",
    "netem": "this kernel has no sch_netem, which delays packets: leave --host_latency out",
    "tbf": "this kernel has no sch_tbf, which shapes traffic: leave --host_bandwidth out",
}


@dataclass(frozen=True)
class HostShape:
    """Limits of every simulated host; None: no limit."""

    bits_per_s: int | None = None
    latency_us: int | None = None
    limits: HostLimits = field(default_factory=HostLimits)

    def own_qdiscs(self) -> list[list[str]]:
        """Return the arguments of ``tc qdisc add dev DEVICE`` for the device of a host."""
        delay = [["root", "handle", "1:", "netem", "delay", f"{self.latency_us}us"]]
        rate = [["parent", "1:", "handle", "2:", *self._tbf()]]
        if self.latency_us is None:
            return self.switch_qdiscs()
        return delay + (rate if self.bits_per_s else [])

    def switch_qdiscs(self) -> list[list[str]]:
        """Return those for the switch's end of the cable, which limit what the host receives."""
        return [["root", "handle", "1:", *self._tbf()]] if self.bits_per_s else []

    def _tbf(self) -> list[str]:
        # man 8 tc-tbf: the bucket holds at least the bytes of one tick of the kernel's clock.
        burst = max(64 * 1024, (self.bits_per_s or 0) // 8 // 100)
        return ["tbf", "rate", f"{self.bits_per_s}bit", "burst", str(burst), "latency", "50ms"]


def parse_rate(text: str) -> int:
    """Return the bits per second of ``100mbit`` or ``1gbit``.

    Raises:
      UserError: the text is not a rate.
    """
    match = _RATE.fullmatch(text.strip())
    bits = round(float(match[1]) * _SCALE[match[2].lower()]) if match else 0
    if bits < 8000:
        raise UserError(f"host_bandwidth '{text}': write 100mbit or 1gbit, at least 8kbit")
    return bits


def parse_latency(text: str) -> int:
    """Return the microseconds of ``2ms``, ``500us`` or ``1s``.

    Raises:
      UserError: the text is not a time.
    """
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise UserError(f"host_latency '{text}': write 2ms, 500us or 1s")
    return round(float(match[1]) * _MICROSECONDS[match[2]])


def parse_cpus(text: str) -> float:
    """Return a number of cores, 0.01 or more.

    Raises:
      UserError: the text is not such a number.
    """
    try:
        cpus = float(text)
    except ValueError:
        cpus = 0.0
    if not 0.01 <= cpus <= 4096:
        raise UserError(f"host_cpus '{text}': write a number of cores like 1 or 0.5")
    return cpus


@dataclass(frozen=True)
class Network:
    """The network that the keeper has created.

    Attributes:
      hosts: process id of each host by name; the process holds the host's namespaces.
      switch: process id of the keeper, whose network holds the switch.
      in_user_namespace: whether the namespaces belong to a user namespace (no root needed).
      cgroups: paths of each host's control groups by name.
    """

    hosts: Mapping[str, int]
    switch: int
    in_user_namespace: bool
    cgroups: Mapping[str, tuple[str, ...]]


class NetnsBackend:
    """Simulated hosts; they exist while the back end is opened."""

    def __init__(self, shape: HostShape) -> None:
        self._shape = shape
        self._network: Network | None = None
        self._hosts: tuple[Host, ...] = ()
        self._unplugged: frozenset[str] = frozenset()
        self._keeper: subprocess.Popen[str] | None = None

    def hosts(self, num_workers: int) -> tuple[Host, ...]:
        """Return host-0, host-1, …: one per worker."""
        if num_workers > MAX_HOSTS:
            raise UserError(f"{num_workers} simulated hosts are too many: {MAX_HOSTS} at most")
        return tuple(
            Host(f"host-{i}", f"10.83.{i // 250}.{i % 250 + 1}", sys.executable)
            for i in range(num_workers)
        )

    def list_hosts(self) -> tuple[Host, ...]:
        """Return the hosts that are connected to the switch."""
        unplugged = self._unplugged  # read once: another thread may replace it
        return tuple(host for host in self._hosts if host.name not in unplugged)

    @contextlib.contextmanager
    def opened(self, hosts: Sequence[Host]) -> Iterator[None]:
        """Create the hosts, and remove them and all their processes at the end.

        The keeper holds them. It removes them when its standard input closes, which also happens
        when this process is killed. It ignores stop signals: on Ctrl-C the workers have to stop
        before their hosts vanish.
        """
        _check_tools()
        spec = self._keeper_spec(hosts)
        keeper = self._keeper = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(netns_keeper.__file__).resolve())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=ignore_stop_requests,
        )
        try:
            answer = self._ask(spec)
            self._hosts = tuple(hosts)
            self._network = Network(
                hosts=dict(zip((host.name for host in hosts), answer["pids"], strict=True)),
                switch=answer["switch"],
                in_user_namespace=answer["user"],
                cgroups={h["name"]: tuple(g["path"] for g in h["cgroups"]) for h in spec["hosts"]},
            )
            yield
        finally:
            self._network = self._keeper = None
            self._hosts = ()
            assert keeper.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                keeper.stdin.close()
            keeper.wait()
            assert keeper.stdout is not None
            keeper.stdout.close()

    def _keeper_spec(self, hosts: Sequence[Host]) -> dict[str, Any]:
        job = f"tenfold-{os.getpid()}-{secrets.token_hex(3)}"
        return {
            "hosts": [
                {
                    "name": host.name,
                    "address": host.address,
                    **_groups(self._shape.limits, f"{job}-{host.name}"),
                }
                for host in hosts
            ],
            "prefix": PREFIX,
            "switch": SWITCH,
            "shape": self._shape.own_qdiscs(),
            "switch_shape": self._shape.switch_qdiscs(),
        }

    def _ask(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Send a message to the keeper; return its answer, one JSON line each."""
        keeper = self._keeper
        assert keeper is not None, "the back end is not opened"
        assert keeper.stdin is not None
        assert keeper.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            keeper.stdin.write(json.dumps(message) + "\n")
            keeper.stdin.flush()
        answer: dict[str, Any] = json.loads(keeper.stdout.readline() or '{"error": "it died"}')
        if "error" in answer:
            hint = _HINTS.get(answer.get("step", ""), "or use --backend=local")
            raise UserError(f"simulated hosts cannot be created here: {answer['error']}: {hint}")
        return answer

    def unplug(self, host: Host) -> None:
        """Set the switch's end of the host's cable down."""
        self._ask({"unplug": self._number(host)})
        self._unplugged |= {host.name}

    def heal(self, host: Host) -> None:
        """Set the cable up again."""
        self._ask({"heal": self._number(host)})
        self._unplugged -= {host.name}

    def freeze(self, host: Host) -> None:
        """Stop all processes on the host."""
        self._ask({"freeze": self._number(host)})

    def thaw(self, host: Host) -> None:
        """Continue all processes on the host."""
        self._ask({"thaw": self._number(host)})

    def _number(self, host: Host) -> int:
        assert self._network is not None
        return list(self._network.hosts).index(host.name)

    def choose_ports(self, hosts: Sequence[Host], first_port: int | None) -> tuple[int, ...]:
        """Return one port for all hosts: on a new host every port is free."""
        if first_port is None:
            return (PORT,) * len(hosts)
        return numbered_ports(len(hosts), first_port)

    def command(self, host: Host, argv: Sequence[str], env: Mapping[str, str]) -> HostCommand:
        """Return a command that runs `argv` in the host's namespaces and control groups."""
        assert self._network is not None, "the back end is not opened"
        entered = self._enter(self._network.hosts[host.name], argv)
        groups = self._network.cgroups[host.name]
        joined = ("sh", "-c", _JOIN, "sh", *groups, "--", *entered) if groups else entered
        return HostCommand(joined, dict(env))

    def switch_command(self, argv: Sequence[str]) -> tuple[str, ...]:
        """Return a command that runs `argv` at the switch, which reaches all hosts by name."""
        assert self._network is not None, "the back end is not opened"
        return self._enter(self._network.switch, argv)

    def _enter(self, pid: int, argv: Sequence[str]) -> tuple[str, ...]:
        assert self._network is not None
        user = ("--user", "--preserve-credentials") if self._network.in_user_namespace else ()
        names = ("--net", "--mount", "--uts", f"--wd={os.getcwd()}")
        return ("nsenter", f"--target={pid}", *user, *names, "--", *argv)


def _groups(limits: HostLimits, name: str) -> dict[str, Any]:
    """The control groups of one host in the format of the keeper's specification."""
    cgroups = plan_cgroups(limits, name)
    freezer = plan_freezer(cgroups, name)
    return {
        "cgroups": [asdict(group) for group in cgroups],
        "freezer": asdict(freezer) if freezer else None,
    }


def _check_tools() -> None:
    for tool, package in (("ip", "iproute2"), ("tc", "iproute2"), ("nsenter", "util-linux")):
        if shutil.which(tool) is None:
            raise UserError(
                f"simulated hosts need the program '{tool}': apt-get install {package}, "
                "or use --backend=local"
            )


def create(options: Mapping[str, str]) -> Backend:
    """Return the back end.

    Raises:
      UserError: an option has a wrong value.
    """
    return NetnsBackend(parse_shape(options))


def parse_shape(options: Mapping[str, str]) -> HostShape:
    """Return the limits of simulated hosts that OPTIONS ask for.

    Raises:
      UserError: an option has a wrong value.
    """
    bandwidth, latency = options.get("host_bandwidth"), options.get("host_latency")
    cpus, memory = options.get("host_cpus"), options.get("host_memory")
    return HostShape(
        bits_per_s=parse_rate(bandwidth) if bandwidth else None,
        latency_us=parse_latency(latency) if latency else None,
        limits=HostLimits(
            cpus=parse_cpus(cpus) if cpus else None,
            memory_bytes=parse_size(memory) if memory else None,
        ),
    )
