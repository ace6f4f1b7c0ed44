"""The fork server: imports TensorFlow once and forks the workers of this host from itself.

Importing takes seconds of CPU per worker; a fork takes milliseconds, and the workers share the
memory of the imported modules. A fork is safe only while the process has one thread, so before
it no TensorFlow operation may run, no device may be listed, and OpenBLAS must not start its
threads. The server counts its threads and declines if there are more; the launcher then starts
workers as ordinary processes.

The launcher sends two file descriptors per worker over a socket: the agent's standard input and
output. The fork becomes the agent (see agent.py), which forks the worker.
"""

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any, Final, NoReturn

from tenfold.data.runtime.deferred_keras import defer_unused_keras_modules
from tenfold.launcher.worker import agent
from tenfold.launcher.worker.python_argv import module_argv

READY: Final = b"ready"
IMPORTS: Final = (
    "tensorflow",
    "keras",
    "tenfold.models.training.loop",
    "tenfold.launcher.worker.trainer",
    "tenfold.launcher.worker.build_check",
)
# Keeps OpenBLAS from starting threads at import; TensorFlow has its own thread pools.
ENVIRONMENT: Final = {"OPENBLAS_NUM_THREADS": "1"}


# -- In the launcher ------------------------------------------------------------------------


class ForkedAgent:
    """An agent that the server has forked; implements `worker_processes.AgentProcess`."""

    def __init__(self, pid: int, stdin: IO[bytes], stdout: IO[bytes]) -> None:
        self.pid = pid
        self.stdin: IO[bytes] | None = stdin
        self.stdout: IO[bytes] | None = stdout
        self._pidfd: int | None = None
        with contextlib.suppress(ProcessLookupError):
            self._pidfd = os.pidfd_open(pid)

    def poll(self) -> int | None:
        """Return 0 once it has ended (only its parent knows the status), None before."""
        if self._pidfd is None or select.select([self._pidfd], [], [], 0)[0]:
            return 0
        return None

    def kill(self) -> None:
        """Kill it."""
        if self._pidfd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def wait(self) -> int:
        """Wait until it has ended."""
        if self._pidfd is not None:
            select.select([self._pidfd], [], [])
            os.close(self._pidfd)
            self._pidfd = None
        return 0


class ForkServer:
    """The launcher's side: starts the server and requests agents."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._socket, server_end = socket.socketpair()
        with server_end:
            self._process = subprocess.Popen(
                module_argv(__name__, [str(server_end.fileno())]),
                env={**os.environ, **env, **ENVIRONMENT},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[server_end.fileno()],
            )
        self.usable: bool | None = None

    def wait_ready(self, timeout_s: float) -> bool | None:
        """Return whether the server can fork, None if that is not known after `timeout_s`."""
        if self.usable is None and select.select([self._socket], [], [], timeout_s)[0]:
            self.usable = self._socket.recv(64) == READY
        return self.usable

    def spawn(self) -> ForkedAgent | None:
        """Return a new agent, None if the server has ended."""
        agent_stdin, stdin = os.pipe()
        stdout, agent_stdout = os.pipe()
        try:
            socket.send_fds(self._socket, [b"fork"], [agent_stdin, agent_stdout])
            pid = int(self._socket.recv(64) or b"0")
        except OSError:
            pid = 0
        finally:
            os.close(agent_stdin)
            os.close(agent_stdout)
        if not pid:
            os.close(stdin)
            os.close(stdout)
            self.usable = False
            return None
        return ForkedAgent(pid, open(stdin, "wb", 0), open(stdout, "rb", 0))

    def close(self) -> None:
        """Kill the server."""
        self._socket.close()
        self._process.kill()
        self._process.wait()


def wait_until_ready(server: ForkServer, *, timeout_s: float, stopped: Callable[[], bool]) -> bool:
    """Wait for `server` until `stopped()`; returns whether it can fork."""
    until = time.monotonic() + timeout_s
    while server.wait_ready(0.05) is None and time.monotonic() < until and not stopped():
        pass
    return bool(server.usable)


# -- In the server --------------------------------------------------------------------------


def main() -> None:
    """Import, then fork an agent per request until the launcher closes the socket."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    launcher = socket.socket(fileno=int(sys.argv[-1]))
    # During the import nobody reads the socket, which would report the end of the launcher. The
    # signal comes when the thread that started this process ends: the launcher's main thread.
    agent.die_with_parent()
    if select.select([launcher], [], [], 0)[0]:
        return  # the launcher ended before that call
    if not import_modules():
        launcher.send(b"more than one thread")
        return
    keep = {int(fd) for fd in os.listdir("/proc/self/fd")} - {launcher.fileno()}
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps the agents
    launcher.send(READY)
    while True:
        message, fds, _, _ = socket.recv_fds(launcher, 64, 2)
        if not message:
            return
        pid = os.fork()
        if pid == 0:
            become_agent([launcher], fds, keep)
        for fd in fds:
            os.close(fd)
        launcher.send(str(pid).encode())


def import_modules() -> bool:
    """Import what a worker needs; return whether this process may be forked then."""
    defer_unused_keras_modules()
    for name in IMPORTS:
        __import__(name)
    return len(os.listdir("/proc/self/task")) == 1


def become_agent(sockets: Sequence[socket.socket], fds: Sequence[int], keep: set[int]) -> NoReturn:
    """Run an agent and its worker in this fork of a server, then end the process.

    Args:
      sockets: sockets of the server, which are closed.
      fds: the agent's standard input and output.
      keep: file descriptors that the worker inherits besides its standard streams.
    """
    status = 1
    try:
        for each in sockets:
            each.close()
        os.setpgid(0, 0)
        stdin, stdout = fds
        os.dup2(stdin, 0)
        os.close(stdin)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        agent.guard(0, stdout)
        forked = agent.Agent(0, stdout)
        if forked.read_spec():
            forked.start(lambda spec, out, err: _fork_worker(spec, out, err, keep))
            status = 0 if forked.run() == 0 else 1
    finally:
        os._exit(status)


def _fork_worker(spec: dict[str, Any], out: int, err: int, keep: set[int]) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        _become_worker(spec, out, err, keep)
    finally:
        os._exit(70)
    raise AssertionError


def _become_worker(spec: dict[str, Any], out: int, err: int, keep: set[int]) -> None:
    signal.set_wakeup_fd(-1)
    agent.prepare_worker()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.dup2(out, 1)
    os.dup2(err, 2)
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd > 2 and fd not in keep:
            with contextlib.suppress(OSError):
                os.close(fd)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.update(spec["env"])
    os.chdir(spec["cwd"])
    sys.argv = [spec["argv"][0]]
    from tenfold.launcher.worker import build_check, trainer

    if build_check.CONFIG_VARIABLE in os.environ:
        build_check.main()
    trainer.main()


if __name__ == "__main__":
    main()
