"""A fork server on another host: imports TensorFlow there once, for all starts of a job.

The launcher keeps one on each host over all attempts. It prints the path of a socket when it can
fork, and ends when its standard input closes. An agent that is started on the host with this path
(see agent.py) hands its standard streams over the socket, and a fork of the server runs the worker
in its place.
"""

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from typing import Any, Final

from tenfold.launcher.worker.agent import become_agent
from tenfold.launcher.worker.environment import has_gpu
from tenfold.launcher.worker.forkserver import import_modules, worker_spawner

SOCKET_NAME: Final = "agents"


def main() -> None:
    """Import, then fork an agent for each connection until standard input closes."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if has_gpu() or not import_modules():
        return  # TensorFlow cannot be forked once it knows a GPU, or has threads
    # Only its owner may enter a folder made by mkdtemp.
    folder = tempfile.mkdtemp(prefix="tenfold-server-")
    try:
        _serve(os.path.join(folder, SOCKET_NAME))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _serve(path: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen()
        spawn = worker_spawner(listener.fileno(), 0)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps the agents
        print(json.dumps({"socket": path}), flush=True)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        while True:
            ready = select.select([0, listener.fileno()], [], [])[0]
            if 0 in ready and not os.read(0, 4096):
                return
            if listener.fileno() in ready:
                with contextlib.suppress(OSError):
                    _fork_agent(listener, spawn)


def _fork_agent(listener: socket.socket, spawn: Callable[[dict[str, Any], int, int], int]) -> None:
    connection, _ = listener.accept()
    with connection:
        _, fds, _, _ = socket.recv_fds(connection, 64, 2)
        if len(fds) == 2 and os.fork() == 0:
            # The fork keeps the connection: when it ends, the waiting agent learns it.
            connection.send(b"forked")
            become_agent([listener], fds, spawn)
        for fd in fds:
            os.close(fd)


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)
