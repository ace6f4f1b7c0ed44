"""Every worker on this machine, each with a port of its own on the loopback address."""

import sys
from collections.abc import Mapping, Sequence

from tenfold.launcher.backends import Backend, Host
from tenfold.launcher.job import HostCommand

ADDRESS = "127.0.0.1"


class LocalBackend:
    """Runs argv as it is."""

    def hosts(self, num_workers: int) -> tuple[Host, ...]:
        """Returns this machine, `num_workers` times."""
        return (Host(name="localhost", address=ADDRESS, python=sys.executable),) * num_workers

    def command(self, host: Host, argv: Sequence[str], env: Mapping[str, str]) -> HostCommand:
        """Returns `argv` and `env` unchanged."""
        del host
        return HostCommand(tuple(argv), dict(env))


def create(options: Mapping[str, str]) -> Backend:
    """Returns the back end; it has no options."""
    del options
    return LocalBackend()
