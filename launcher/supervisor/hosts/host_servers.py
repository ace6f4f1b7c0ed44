"""The fork servers on the hosts of a job: one for each host that runs one worker."""

import contextlib
import json
import os
import selectors
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from tenfold.launcher.backends.base import Backend, Host
from tenfold.launcher.worker import host_server
from tenfold.launcher.worker.agent import die_with_parent
from tenfold.launcher.worker.python_argv import remote_module_argv
from tenfold.launcher.worker.stop_signals import ignore_stop_requests

_END_S: Final = 2.0


class HostServers:
    """Starts fork servers on hosts, and knows where they listen. Used by one thread.

    A host that cannot have one (an NVIDIA GPU, no TensorFlow, lost) is left out, and its workers
    start as ordinary processes. So is a host that runs several workers, which would share the
    CPUs that the platform gives to the server.

    Args:
      backend: where to run.
      env: environment variables of the servers.
    """

    def __init__(self, backend: Backend, env: Mapping[str, str]) -> None:
        self._backend = backend
        self._env = env
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._sockets: dict[str, str] = {}

    def start(self, hosts: Sequence[Host]) -> None:
        """Start a server on each host that has none."""
        workers = Counter(host.name for host in hosts)
        for host in hosts:
            if workers[host.name] == 1 and not self._runs(host):
                self._sockets.pop(host.name, None)
                self._processes[host.name] = self._start(host)

    def _runs(self, host: Host) -> bool:
        process = self._processes.get(host.name)
        return process is not None and process.poll() is None

    def _start(self, host: Host) -> "subprocess.Popen[bytes]":
        argv = remote_module_argv(host_server.__name__, python=host.python)
        command = self._backend.command(host, argv, self._env)
        return subprocess.Popen(
            command.argv,
            env={**os.environ, **command.env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            preexec_fn=_outlast_signals,
        )

    def wait(self, timeout_s: float, *, stopped: Callable[[], bool]) -> None:
        """Wait until each server listens or has ended, `timeout_s` at most."""
        until = time.monotonic() + timeout_s
        with selectors.DefaultSelector() as selector:
            for name, process in self._processes.items():
                if name not in self._sockets and process.stdout is not None:
                    selector.register(process.stdout, selectors.EVENT_READ, name)
            while selector.get_map() and time.monotonic() < until and not stopped():
                for key, _ in selector.select(0.05):
                    selector.unregister(key.fileobj)
                    self._read(str(key.data))

    def _read(self, name: str) -> None:
        stream = self._processes[name].stdout
        assert stream is not None
        # One short line, which the server writes at once; nothing at its end.
        line = stream.readline()
        with contextlib.suppress(ValueError, KeyError, TypeError):
            self._sockets[name] = str(json.loads(line)["socket"])

    def socket_of(self, host: Host) -> str:
        """Return the socket of the server on `host`; "" if none listens."""
        return self._sockets.get(host.name, "") if self._runs(host) else ""

    def close(self) -> None:
        """End all servers."""
        for process in self._processes.values():
            process.stdin.close()  # type: ignore[union-attr]
        until = time.monotonic() + _END_S
        for process in self._processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, until - time.monotonic()))
            process.kill()
            process.wait()
            process.stdout.close()  # type: ignore[union-attr]


def _outlast_signals() -> None:
    """Keep the server until the launcher closes its input, but not longer than that lives."""
    ignore_stop_requests()
    die_with_parent()


@contextlib.contextmanager
def host_servers(
    backend: Backend,
    hosts: Sequence[Host],
    env: Mapping[str, str],
    *,
    timeout_s: float,
    stopped: Callable[[], bool],
) -> Iterator[HostServers]:
    """Return a context with servers on `hosts`, of which those that can listen.

    Args:
      backend: where to run.
      hosts: the host of each worker.
      env: environment variables of the servers.
      timeout_s: how long to wait for them.
      stopped: whether the launch was asked to stop.
    """
    servers = HostServers(backend, env)
    try:
        servers.start(hosts)
        servers.wait(timeout_s, stopped=stopped)
        yield servers
    finally:
        servers.close()
