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
        self._shared: set[str] = set()
        self._unheard: set[str] = set()

    def start(self, hosts: Sequence[Host]) -> None:
        """Start a server on each host that has had none, or has lost the one that listened.

        A host whose server never listened cannot have one: a second would cost another import.
        """
        workers = Counter(host.name for host in hosts)
        self._shared |= {name for name, count in workers.items() if count > 1}
        for host in hosts:
            name, is_new = host.name, host.name not in self._processes
            was_lost = name in self._sockets and not self._runs(host)
            if name not in self._shared and (is_new or was_lost):
                if was_lost:
                    del self._sockets[name]
                    _end(self._processes[name], timeout_s=0)
                self._processes[name] = self._start(host)
                self._unheard.add(name)

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

    def wait(
        self, hosts: Sequence[Host], timeout_s: float, *, stopped: Callable[[], bool]
    ) -> None:
        """Wait until each new server on `hosts` listens or has ended, `timeout_s` at most.

        A server that takes longer is not waited for again.
        """
        until = time.monotonic() + timeout_s
        names = self._unheard & {host.name for host in hosts}
        self._unheard -= names
        with selectors.DefaultSelector() as selector:
            for name in names:
                selector.register(self._processes[name].stdout, selectors.EVENT_READ, name)  # type: ignore[arg-type]
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
        is_alone = host.name not in self._shared
        return self._sockets.get(host.name, "") if is_alone and self._runs(host) else ""

    def close(self) -> None:
        """End all servers."""
        for process in self._processes.values():
            process.stdin.close()  # type: ignore[union-attr]
        until = time.monotonic() + _END_S
        for process in self._processes.values():
            _end(process, timeout_s=until - time.monotonic())


def _end(process: "subprocess.Popen[bytes]", *, timeout_s: float) -> None:
    """Close a server's streams; kill it if it has not ended in time."""
    with contextlib.suppress(OSError):
        process.stdin.close()  # type: ignore[union-attr]
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(max(0.0, timeout_s))
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
    spares: Sequence[Host] = (),
    timeout_s: float,
    stopped: Callable[[], bool],
) -> Iterator[HostServers]:
    """Return a context with servers on `hosts`, of which those that can listen.

    Args:
      backend: where to run.
      hosts: the host of each worker.
      env: environment variables of the servers.
      spares: hosts that stand by; their servers are not waited for.
      timeout_s: how long to wait for the servers on `hosts`.
      stopped: whether the launch was asked to stop.
    """
    servers = HostServers(backend, env)
    try:
        servers.start((*hosts, *spares))
        servers.wait(hosts, timeout_s, stopped=stopped)
        yield servers
    finally:
        servers.close()
