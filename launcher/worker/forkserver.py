"""The fork server: imports TensorFlow once and forks the workers of this host from itself.

Importing takes seconds of CPU per worker; a fork takes milliseconds, and the workers share the
memory of the imported modules. A fork is safe only while the process has one thread, so before
it no TensorFlow operation may run, no device may be listed, and OpenBLAS must not start its
threads. The server counts its threads and declines if there are more; the launcher then starts
workers as ordinary processes.

The launcher sends two file descriptors per worker over a socket: the agent's standard input and
output. The fork becomes the agent (see agent.py), which forks the worker. Where nothing is to be
imported for the workers, the server is agent.py itself, and its agents start programs.
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
from typing import IO, Any, Final

from tenfold.data.runtime.deferred_keras import defer_unused_keras_modules
from tenfold.launcher.worker import agent
from tenfold.launcher.worker.python_argv import module_argv

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
    """The launcher's side: starts a server and requests agents."""

    def __init__(
        self, argv: Sequence[str], env: Mapping[str, str], *, stderr: int | None = None
    ) -> None:
        """Start the server.

        Args:
          argv: its program; the number of its socket follows as the last argument.
          env: its additional environment variables.
          stderr: as for Popen.
        """
        self._socket, server_end = socket.socketpair()
        with server_end:
            self._process = subprocess.Popen(
                [*argv, str(server_end.fileno())],
                env={**os.environ, **env},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                pass_fds=[server_end.fileno()],
            )
        self.usable: bool | None = None

    @classmethod
    def preloaded(cls, env: Mapping[str, str]) -> "ForkServer":
        """Start a server that imports TensorFlow, and whose workers are its forks."""
        return cls(module_argv(__name__), {**env, **ENVIRONMENT}, stderr=subprocess.DEVNULL)

    @classmethod
    def plain(cls) -> "ForkServer":
        """Start a server of agents that start programs."""
        return cls(agent.own_argv(sys.executable, agent.SERVE), {})

    def wait_ready(self, timeout_s: float) -> bool | None:
        """Return whether the server can fork, None if that is not known after `timeout_s`."""
        if self.usable is None and select.select([self._socket], [], [], timeout_s)[0]:
            self.usable = self._socket.recv(64) == agent.READY
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
    launcher = agent.connect_to_launcher(int(sys.argv[-1]))
    if launcher is None:
        return
    if not import_modules():
        launcher.send(b"more than one thread")
        return
    agent.serve(launcher, worker_spawner(launcher.fileno()))


def import_modules() -> bool:
    """Import what a worker needs; return whether this process may be forked then."""
    defer_unused_keras_modules()
    for name in IMPORTS:
        __import__(name)
    return len(os.listdir("/proc/self/task")) == 1


def worker_spawner(*closed: int) -> Callable[[dict[str, Any], int, int], int]:
    """Return the function by which an agent forks its worker; see `Agent.start`.

    Args:
      *closed: file descriptors of this process that workers do not inherit.
    """
    keep = {int(fd) for fd in os.listdir("/proc/self/fd")} - set(closed)
    return lambda spec, out, err: _fork_worker(spec, out, err, keep)


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
