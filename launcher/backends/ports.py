"""Free TCP ports for the workers' servers."""

import random
import socket
from collections.abc import Iterable
from typing import Final

from tenfold.data.errors import JobError, UserError

# Below Linux's range of ephemeral ports (32768-60999): the workers' own outgoing
# connections cannot take a port that a peer has yet to open.
LOWEST: Final = 10_000
HIGHEST: Final = 32_000
TRIES: Final = 2_000
# Not the generator that programs seed: two with one seed would want the same ports.
_CHANCE: Final = random.SystemRandom()


def is_free(address: str, port: int) -> bool:
    """Says whether a server could listen on `port` of `address` now."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as server:
        # As gRPC's servers do: ports that only wait for the end of old connections are free.
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind((address, port))
            server.listen(1)
        except OSError:
            return False
    return True


def pick_ports(address: str, count: int, *, avoid: Iterable[int] = ()) -> tuple[int, ...]:
    """Returns `count` different free ports of `address`, none of `avoid`.

    Raises:
      JobError: there are not so many.
    """
    taken = set(avoid)
    found: list[int] = []
    for _ in range(TRIES):
        if len(found) == count:
            return tuple(found)
        port = _CHANCE.randrange(LOWEST, HIGHEST)
        if port not in taken and is_free(address, port):
            taken.add(port)
            found.append(port)
    raise JobError(f"no {count} free ports between {LOWEST} and {HIGHEST} on {address}")


def far_ports(count: int, first: int | None) -> tuple[int, ...]:
    """Returns `count` ports for hosts whose ports cannot be looked at from here: from `first`
    on, or any. Whether they are free the check before the start finds out.

    Raises:
      UserError: one is no port.
    """
    if first is None:
        return tuple(_CHANCE.sample(range(LOWEST, HIGHEST), count))
    return numbered_ports(count, first)


def numbered_ports(count: int, first: int) -> tuple[int, ...]:
    """Returns the ports `first`, `first` + 1, …, one per worker.

    Raises:
      UserError: one is no port.
    """
    ports = tuple(range(first, first + count))
    for worker, port in enumerate(ports):
        check_port(port, worker)
    return ports


def consecutive_ports(address: str, first: int, count: int) -> tuple[int, ...]:
    """Returns `count` ports of `address` from `first` on, one per worker.

    Raises:
      UserError: one of them is not free; the message says by whom it is held.
    """
    ports = numbered_ports(count, first)
    for worker, port in enumerate(ports):
        if not is_free(address, port):
            raise port_taken(address, port, worker, port_holder(port))
    return ports


def check_port(port: int, worker: int) -> None:
    """Checks that `port` is the number of one.

    Raises:
      UserError: it is not.
    """
    if not 1 <= port <= 65535:
        raise UserError(
            f"port {port} for worker {worker} is not between 1 and 65535: lower --port"
        )


def port_taken(address: str, port: int, worker: int, holder: str) -> UserError:
    """Returns the error that says so; `holder` may be empty."""
    by = f" by {holder}" if holder else ""
    return UserError(
        f"port {port} on {address} for worker {worker} is taken{by}: "
        "give another --port, or none to have free ones chosen"
    )


def port_holder(port: int) -> str:
    """Returns who listens on `port`, like ``python (pid 812)``; empty where it cannot be told."""
    import psutil

    try:
        connections = psutil.net_connections("tcp")
    except (psutil.Error, OSError):
        return ""
    for connection in connections:
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
            return _process_name(connection.pid)
    return ""


def _process_name(pid: int | None) -> str:
    import psutil

    try:
        return f"{psutil.Process(pid).name()} (pid {pid})" if pid else ""
    except psutil.Error:
        return f"pid {pid}"
