"""Free TCP ports for the workers' servers."""

import random
import socket
from collections.abc import Iterable
from typing import Final

from tenfold.data.errors import JobError, UserError

# Below Linux's range of ephemeral ports (32768-60999), so that an outgoing connection of a worker
# cannot take a port that a peer has yet to open.
LOWEST: Final = 10_000
HIGHEST: Final = 32_000
MAX_TRIES: Final = 2_000
# The global generator may be seeded: two programs with one seed would pick the same ports.
_RANDOM: Final = random.SystemRandom()


def is_free(address: str, port: int) -> bool:
    """Return True if a server could listen on `port` of `address` now."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as server:
        # As gRPC's servers do: a port in TIME_WAIT, of closed connections only, counts as free.
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind((address, port))
            server.listen(1)
        except OSError:
            return False
    return True


def pick_ports(address: str, count: int, *, avoid: Iterable[int] = ()) -> tuple[int, ...]:
    """Return `count` different free ports of `address`, none of `avoid`.

    Raises:
      JobError: there are fewer free ports.
    """
    taken = set(avoid)
    found: list[int] = []
    for _ in range(MAX_TRIES):
        if len(found) == count:
            return tuple(found)
        port = _RANDOM.randrange(LOWEST, HIGHEST)
        if port not in taken and is_free(address, port):
            taken.add(port)
            found.append(port)
    raise JobError(f"no {count} free ports between {LOWEST} and {HIGHEST} on {address}")


def far_ports(count: int, first: int | None) -> tuple[int, ...]:
    """Return ports for hosts whose ports cannot be probed from here.

    The check of the hosts before the start finds out whether they are free.

    Args:
      count: how many ports, one per worker.
      first: the first of consecutive ports; None picks them at random.

    Raises:
      UserError: a number is not a TCP port.
    """
    if first is None:
        return tuple(_RANDOM.sample(range(LOWEST, HIGHEST), count))
    return numbered_ports(count, first)


def numbered_ports(count: int, first: int) -> tuple[int, ...]:
    """Return the ports `first`, `first` + 1, …, one per worker.

    Raises:
      UserError: a number is not a TCP port.
    """
    ports = tuple(range(first, first + count))
    for worker, port in enumerate(ports):
        check_port(port, worker)
    return ports


def consecutive_ports(address: str, first: int, count: int) -> tuple[int, ...]:
    """Return `count` ports of `address` from `first` on, one per worker.

    Raises:
      UserError: a port is taken; the message names the process that holds it.
    """
    ports = numbered_ports(count, first)
    for worker, port in enumerate(ports):
        if not is_free(address, port):
            raise port_taken(address, port, worker, port_holder(port))
    return ports


def check_port(port: int, worker: int) -> None:
    """Check that `port`, of worker `worker`, is a TCP port.

    Raises:
      UserError: it is not between 1 and 65535.
    """
    if not 1 <= port <= 65535:
        raise UserError(
            f"port {port} for worker {worker} is not between 1 and 65535: lower --port"
        )


def port_taken(address: str, port: int, worker: int, holder: str) -> UserError:
    """Return the error for a port that `holder` has taken; "" where the holder is unknown."""
    by = f" by {holder}" if holder else ""
    return UserError(
        f"port {port} on {address} for worker {worker} is taken{by}: "
        "give another --port, or none to have free ones chosen"
    )


def port_holder(port: int) -> str:
    """Return the process that listens on `port`, as ``python (pid 812)``; "" where unknown."""
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
