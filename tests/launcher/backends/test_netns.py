"""Simulated hosts: apart from each other, shaped, bounded, and gone without a trace."""

import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest

from tenfold.data.errors import UserError
from tenfold.launcher.backends import netns_keeper
from tenfold.launcher.backends.backend_registry import load_backend
from tenfold.launcher.backends.base import Host
from tenfold.launcher.backends.cgroups import (
    Cgroup,
    FreezerFiles,
    HostLimits,
    plan_cgroups,
    plan_freezer,
)
from tenfold.launcher.backends.netns import (
    MAX_HOSTS,
    HostShape,
    NetnsBackend,
    parse_latency,
    parse_rate,
)

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def open_hosts(netns_works: None) -> Iterator:
    """Open two hosts with some options; they are closed at the end."""
    with contextlib.ExitStack() as stack:

        def make(**options: str) -> tuple[NetnsBackend, tuple[Host, ...]]:
            backend = load_backend("netns", options)
            assert isinstance(backend, NetnsBackend)
            hosts = backend.hosts(2)
            stack.enter_context(backend.opened(hosts))
            return backend, hosts

        yield make


def on(backend: NetnsBackend, host: Host, *argv: str) -> str:
    """Return what a program prints on a host."""
    command = backend.command(host, argv, {})
    return subprocess.run(command.argv, capture_output=True, text=True, check=True).stdout


CONNECT = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], 2222), float(sys.argv[2])).close()
    print("reached")
except OSError as error:
    print("no way")
"""


def connects(backend: NetnsBackend, host: Host, target: str, *, patience_s: float = 30) -> bool:
    """Says whether a program on a host can connect to `target`."""
    program = (sys.executable, "-c", CONNECT, target, str(patience_s))
    return on(backend, host, *program) == "reached\n"


SERVE = """
import socket, sys
server = socket.create_server(("", 2222))
print("up", flush=True)
while True:
    server.accept()[0].close()
"""


def test_hosts_have_separate_names_and_loopbacks(open_hosts):
    backend, (one, other) = open_hosts()
    assert on(backend, one, "hostname") == "host-0\n"
    command = backend.command(other, [sys.executable, "-c", SERVE], {})
    with subprocess.Popen(command.argv, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "up\n"
        try:
            for target in ("host-1", other.address):
                assert connects(backend, one, target)
            assert not connects(backend, one, "127.0.0.1")
            assert connects(backend, other, "127.0.0.1")
            assert "switch:" not in Path("/proc/net/dev").read_text()
            backend.unplug(other)
            assert not connects(backend, one, other.address, patience_s=1.5)
            backend.heal(other)
            assert connects(backend, one, other.address)
        finally:
            server.kill()


# Writes the time ten times a second.
TICK = "import time\nwhile True: print(time.monotonic(), flush=True); time.sleep(0.1)"


def test_frozen_host_stops_until_thawed(open_hosts, until):
    """With the kernel's freezer as root, by signals without."""
    backend, (one, other) = open_hosts()
    command = backend.command(one, [sys.executable, "-c", TICK], {})
    with subprocess.Popen(command.argv, stdout=subprocess.PIPE, text=True) as clock:
        assert clock.stdout is not None
        try:
            clock.stdout.readline()
            backend.freeze(one)
            assert on(backend, other, "echo", "awake") == "awake\n"
            frozen_at = time.monotonic()
            stopped = (psutil.STATUS_STOPPED, psutil.STATUS_DISK_SLEEP)  # the freezer's is D
            until(lambda: psutil.Process(clock.pid).status() in stopped)
            time.sleep(0.5)
            thawed_at = time.monotonic()
            backend.thaw(one)
            times = [float(clock.stdout.readline())]
            while times[-1] < thawed_at:
                times.append(float(clock.stdout.readline()))
        finally:
            clock.kill()
    assert not [at for at in times if frozen_at + 0.1 < at < thawed_at]


def test_bandwidth_limits_both_directions(open_hosts):
    backend, (one, _) = open_hosts(host_bandwidth="100mbit")
    assert "rate 100Mbit" in on(backend, one, "tc", "qdisc", "show", "dev", "eth0")
    at_switch = backend.switch_command(["tc", "qdisc", "show"])
    shown = subprocess.run(at_switch, capture_output=True, text=True, check=True).stdout
    assert shown.count("rate 100Mbit") == 2


def test_latency_is_applied_or_refused(open_hosts):
    try:
        backend, (one, _) = open_hosts(host_latency="2ms")
    except UserError as error:
        assert "no sch_netem" in str(error)  # noqa: PT017  which of the two is the kernel's choice
        assert "leave --host_latency out" in str(error)  # noqa: PT017
    else:
        assert "delay 2ms" in on(backend, one, "tc", "qdisc", "show", "dev", "eth0")


@pytest.fixture
def cgroups_work(netns_works: None) -> None:
    backend = load_backend("netns", {"host_cpus": "1", "host_memory": "1GB"})
    try:
        with backend.opened(backend.hosts(1)):
            pass
    except UserError as error:
        pytest.skip(str(error))


def test_memory_limit_kills_and_is_reported(launch, cgroups_work, cgroups_of):
    text = """
    if index == 1:
        pile = [b"x" * 10**6 for _ in range(400)]
    time.sleep(20)
    """
    flags = ("--backend=netns", "--num_workers=2", "--host_memory=150MB", "--host_cpus=0.5")
    launch.run(*flags, text=text)
    assert launch.status == 1
    first = launch.result["first_failure"]
    assert (first["worker"], first["exit_code"]) == (1, -9)
    assert "out-of-memory" in first["error"]
    assert not cgroups_of(launch.process.pid)


def test_cores_are_limited(open_hosts, cgroups_work):
    backend, (one, _) = open_hosts(host_cpus="0.5")
    where = on(backend, one, "cat", "/proc/self/cgroup")
    (path,) = {line.rpartition(":")[2] for line in where.splitlines() if "tenfold-" in line}
    limits = [*Path("/sys/fs/cgroup").glob(f"cpu*{path}/cpu.cfs_quota_us")]
    limits += Path("/sys/fs/cgroup").glob(f"{path[1:]}/cpu.max")
    assert limits[0].read_text().split()[0] == "50000"


def test_missing_privileges_are_reported_in_one_line(tenfold, tmp_path):
    (tmp_path / "python").symlink_to(sys.executable)
    done = tenfold(
        "launch", "--backend=netns", "--", "python", "-c", "", cwd=tmp_path, PATH=str(tmp_path)
    )
    assert done.status == 2
    assert done.err.startswith("tenfold: simulated hosts need the program 'ip'")
    assert done.err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (parse_rate, "100mbit", 100 * 10**6),
        (parse_rate, "1Gbit", 10**9),
        (parse_rate, "1.5mbit", 1_500_000),
        (parse_rate, "8kbit", 8000),
        (parse_latency, "2ms", 2000),
        (parse_latency, "500us", 500),
        (parse_latency, "1s", 10**6),
    ],
)
def test_rates_and_times_are_parsed(parse, text, value):
    assert parse(text) == value


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("host_bandwidth", "fast"),
        ("host_bandwidth", "100MB"),
        ("host_bandwidth", "0mbit"),
        ("host_latency", "2"),
        ("host_latency", "-1ms"),
        ("host_cpus", "0"),
        ("host_cpus", "nan"),
        ("host_cpus", "two"),
        ("host_memory", "much"),
    ],
)
def test_malformed_rates_and_times_are_refused(option, text):
    with pytest.raises(UserError, match=re.escape(text)):
        load_backend("netns", {option: text})


def test_delay_qdisc_precedes_rate_qdisc():
    both = HostShape(bits_per_s=10**9, latency_us=2000)
    assert [line[:6] for line in both.own_qdiscs()] == [
        ["root", "handle", "1:", "netem", "delay", "2000us"],
        ["parent", "1:", "handle", "2:", "tbf", "rate"],
    ]
    assert HostShape(latency_us=5).own_qdiscs() == [
        ["root", "handle", "1:", "netem", "delay", "5us"]
    ]
    assert HostShape().own_qdiscs() == HostShape(latency_us=5).switch_qdiscs() == []


def test_addresses_differ_and_fit_the_network():
    hosts = NetnsBackend(HostShape()).hosts(MAX_HOSTS)
    assert len({host.address for host in hosts}) == MAX_HOSTS
    assert all(0 < int(part) < 255 for host in hosts for part in host.address.split(".")[3:])
    with pytest.raises(UserError, match="1001 simulated hosts are too many"):
        NetnsBackend(HostShape()).hosts(MAX_HOSTS + 1)


LIMITS = HostLimits(cpus=1.5, memory_bytes=10**9)


def test_cgroup_v2_needs_one_group(tmp_path):
    (tmp_path / "cgroup.subtree_control").write_text("cpuset cpu io memory pids\n")
    wanted = {"cpu.max": "150000 100000", "memory.max": "1000000000"}
    assert plan_cgroups(LIMITS, "n", root=tmp_path) == (Cgroup(f"{tmp_path}/n", wanted),)


def test_cgroup_v1_needs_one_group_per_controller(tmp_path):
    for folder in ("cpu", "memory"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "cgroup.procs").touch()
    cpu, memory = plan_cgroups(LIMITS, "n", root=tmp_path)
    assert cpu.files == {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "150000"}
    assert memory == Cgroup(f"{tmp_path}/memory/n", {"memory.limit_in_bytes": "1000000000"})


@pytest.mark.parametrize("version", [1, 2])
def test_cgroups_are_created_and_removed(tmp_path, version):
    """On a tree of plain files, as the kernel's looks."""
    if version == 2:
        (tmp_path / "cgroup.subtree_control").write_text("cpu memory\n")
    for folder in ("cpu", "memory"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "cgroup.procs").touch()
    groups = plan_cgroups(LIMITS, "n", root=tmp_path)
    host = {"cgroups": [asdict(group) for group in groups], "freezer": None}
    keeper = netns_keeper.Keeper({"hosts": [host]})
    keeper._make_cgroups()
    for group in groups:
        for name, text in group.files.items():
            assert Path(group.path, name).read_text() == text
            Path(group.path, name).unlink()  # the kernel removes its files with the folder
    keeper.clean_up()
    assert not [group for group in groups if Path(group.path).exists()]
    keeper._make_cgroups()
    with pytest.raises(netns_keeper.StepError, match="File exists") as caught:
        keeper._make_cgroups()
    assert caught.value.step == "cgroup"


def test_cgroups_are_removed_on_a_slow_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(netns_keeper, "CLEAN_UP_S", 0.0)
    groups = [{"path": str(tmp_path / name), "files": {}} for name in ("one", "other")]
    keeper = netns_keeper.Keeper({"hosts": [{"cgroups": groups, "freezer": None}]})
    keeper._make_cgroups()
    assert len(list(tmp_path.iterdir())) == 2
    keeper.clean_up()
    assert not list(tmp_path.iterdir())


def test_cgroups_need_limits_and_controllers(tmp_path):
    assert plan_cgroups(HostLimits(), "n", root=tmp_path) == ()
    with pytest.raises(UserError, match="leave --host_memory out"):
        plan_cgroups(HostLimits(memory_bytes=1), "n", root=tmp_path)


def test_freezers_of_both_cgroup_versions(tmp_path):
    assert plan_freezer((), "n", root=tmp_path) is None
    (tmp_path / "freezer").mkdir()
    (tmp_path / "freezer" / "cgroup.procs").touch()
    wanted = FreezerFiles(f"{tmp_path}/freezer/n", "freezer.state", "FROZEN", "THAWED")
    assert plan_freezer((Cgroup("/x/n", {}),), "n", root=tmp_path) == wanted
    (tmp_path / "cgroup.controllers").write_text("cpu memory\n")
    wanted = FreezerFiles(f"{tmp_path}/n", "cgroup.freeze", "1", "0")
    assert plan_freezer((), "n", root=tmp_path) == wanted
    bounded = plan_freezer((Cgroup("/x/n", {}),), "n", root=tmp_path)
    assert bounded == FreezerFiles("/x/n", "cgroup.freeze", "1", "0")


def test_freezer_collects_processes_before_freezing(tmp_path):
    """On a tree of plain files: a process that is born meanwhile is taken in too."""
    path = tmp_path / "group"
    path.mkdir()
    (path / "cgroup.procs").touch()
    written: list[tuple[str, str]] = []

    class Recording(netns_keeper.Freezer):
        def _members(self):
            return {int(text) for name, text in written if name == "cgroup.procs"}

        def _write(self, name, text):
            written.append((name, text))

    freezer = Recording(asdict(FreezerFiles(str(path), "cgroup.freeze", "1", "0")))
    born = iter([[1], [1, 2], [1, 2]])
    freezer.hold(lambda: next(born))
    freezer.release()
    assert written == [
        ("cgroup.procs", "1"), ("cgroup.procs", "2"), ("cgroup.freeze", "1"),
        ("cgroup.freeze", "0"),
    ]  # fmt: skip
