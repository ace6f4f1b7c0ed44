"""Fork servers on hosts, with real processes: this machine plays the host."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tenfold.launcher.backends.base import Host
from tenfold.launcher.backends.local import LocalBackend
from tenfold.launcher.job.events import Error
from tenfold.launcher.supervisor.hosts.host_servers import HostServers, host_servers
from tenfold.launcher.supervisor.worker_processes import (
    WorkerProcesses,
    WorkerStart,
    agent_argv,
)

HOST = Host("here", "127.0.0.1", sys.executable)
OTHER = Host("there", "127.0.0.1", sys.executable)
LISTENS = """echo '{"socket": "/a"}'"""


def never() -> bool:
    return False


def outcome(argv: tuple[str, ...], cwd: Path) -> tuple[list[str], list[str]]:
    """Start an agent; return the lines of its worker and the errors that it reported.

    A fork of a server runs the trainer, which finds no job file; a process of its own says plain.
    """
    variables = {"RUN_DIR": str(cwd), "WORKER_INDEX": "0", "NUM_WORKERS": "1", "RESTART": "0"}
    spec = {
        "argv": [sys.executable, "-c", "print('plain')"],
        "env": {f"TENFOLD_{name}": value for name, value in variables.items()},
        "cwd": str(cwd), "worker": 0, "port": 0, "heartbeat_timeout_s": 0,
    }  # fmt: skip
    command = LocalBackend().command(HOST, argv, {})
    processes = WorkerProcesses([WorkerStart(0, command, spec)])
    lines: list[str] = []
    errors: list[str] = []
    until = time.monotonic() + 120
    try:
        while processes.running:
            assert time.monotonic() < until, lines
            for message in processes.poll(0.1):
                if message.line is not None:
                    lines.append(message.line)
                if message.event is not None and isinstance(message.event.message, Error):
                    errors.append(message.event.message.message)
    finally:
        processes.close()
    return lines, errors


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_agents_are_forks_of_the_server_of_their_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    (tmp_path / "work").mkdir()
    with host_servers(
        LocalBackend(), [HOST, OTHER, OTHER], {}, timeout_s=200, stopped=never
    ) as servers:
        path = servers.socket_of(HOST)
        assert Path(path).parent.stat().st_mode & 0o777 == 0o700
        assert servers.socket_of(OTHER) == "", "it runs two workers"
        for _ in range(2):  # attempts
            lines, errors = outcome(agent_argv(HOST, path), tmp_path / "work")
            assert "plain" not in lines
            assert errors
            assert "there is no" in errors[0]
        servers.start([HOST])
        assert servers.socket_of(HOST) == path, "a server that runs is kept"
    assert not Path(path).exists()
    assert [entry.name for entry in tmp_path.iterdir()] == ["work"]
    # Without a server the agent starts the worker itself.
    assert outcome(agent_argv(HOST, path), tmp_path / "work") == (["plain"], [])


@pytest.mark.parametrize("argv", [("true",), ("sh", "-c", "echo nonsense; exec cat")])
def test_host_without_a_server_is_left_out(argv: tuple[str, ...]) -> None:
    class Other(LocalBackend):
        def command(self, host: Host, argv_: Any, env: Any) -> Any:
            return super().command(host, argv, env)

    servers = HostServers(Other(), {})
    servers.start([HOST])
    servers.wait([HOST], 60, stopped=never)
    assert servers.socket_of(HOST) == ""
    servers.close()


@dataclass
class FakeServers(LocalBackend):
    """Runs `script` in place of every server; keeps the hosts that it was asked for."""

    script: str = LISTENS
    asked: list[str] = field(default_factory=list)

    def command(self, host: Host, argv: Any, env: Any) -> Any:
        self.asked.append(host.name)
        return super().command(host, ("sh", "-c", self.script), env)


def test_spare_and_returned_hosts_get_servers() -> None:
    backend = FakeServers(script=f"{LISTENS} && read LINE")
    # The start does not wait for the server of a spare host.
    with host_servers(backend, [HOST], {}, spares=[OTHER], timeout_s=60, stopped=never) as servers:
        assert (servers.socket_of(HOST), servers.socket_of(OTHER)) == ("/a", "")
        servers.start([OTHER])
        servers.wait([OTHER], 60, stopped=never)
        assert servers.socket_of(OTHER) == "/a", "the spare host has taken a place"
        assert backend.asked == ["here", "there"]
        lost = servers._processes[HOST.name]
        lost.kill()
        lost.wait()
        assert servers.socket_of(HOST) == ""
        servers.start([HOST])
        servers.wait([HOST], 60, stopped=never)
        assert servers.socket_of(HOST) == "/a", "the lost host has come back"
        servers.start([HOST, OTHER, OTHER])
        assert servers.socket_of(OTHER) == "", "it runs two workers now"
    assert backend.asked == ["here", "there", "here"]


def test_host_without_a_server_is_not_asked_again() -> None:
    backend = FakeServers(script="true")
    with host_servers(backend, [HOST], {}, timeout_s=60, stopped=never) as servers:
        servers.start([HOST])
        servers.wait([HOST], 60, stopped=never)
        assert servers.socket_of(HOST) == ""
    assert backend.asked == ["here"]


def test_stop_ends_the_wait() -> None:
    class Silent(LocalBackend):
        def command(self, host: Host, argv: Any, env: Any) -> Any:
            return super().command(host, ("sleep", "600"), env)

    asked: list[Callable[[], bool]] = []

    def stopped() -> bool:
        asked.append(never)
        return len(asked) > 2

    with host_servers(Silent(), [HOST], {}, timeout_s=600, stopped=stopped) as servers:
        assert servers.socket_of(HOST) == ""
