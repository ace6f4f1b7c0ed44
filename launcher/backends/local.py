"""The local back end: every worker on this machine, each with its own port on loopback."""

import contextlib
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from tenfold.launcher.backends.base import Backend, Host, Option
from tenfold.launcher.backends.ports import consecutive_ports, pick_ports
from tenfold.launcher.job.job_spec import HostCommand

ADDRESS: Final = "127.0.0.1"
OPTIONS: Final[tuple[Option, ...]] = ()


class LocalBackend:
    """Runs commands on this machine as they are."""

    def hosts(self, num_workers: int) -> tuple[Host, ...]:
        """Return this machine, `num_workers` times."""
        return (Host(name="localhost", address=ADDRESS, python=sys.executable),) * num_workers

    def opened(self, hosts: Sequence[Host]) -> contextlib.AbstractContextManager[None]:
        """Do nothing: this machine is ready."""
        del hosts
        return contextlib.nullcontext()

    def choose_ports(self, hosts: Sequence[Host], first_port: int | None) -> tuple[int, ...]:
        """Return free ports of the loopback address."""
        if first_port is None:
            return pick_ports(ADDRESS, len(hosts))
        return consecutive_ports(ADDRESS, first_port, len(hosts))

    def command(self, host: Host, argv: Sequence[str], env: Mapping[str, str]) -> HostCommand:
        """Return `argv` and `env` unchanged."""
        del host
        return HostCommand(tuple(argv), dict(env))


def create(options: Mapping[str, str]) -> Backend:
    """Return the back end; it has no options."""
    del options
    return LocalBackend()
