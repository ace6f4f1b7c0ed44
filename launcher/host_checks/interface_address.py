"""The addresses of hosts on one network interface."""

import json
import os
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from tenfold.data.errors import UserError
from tenfold.launcher.backends.base import Backend, Host
from tenfold.launcher.host_checks.look import PROBE_TIMEOUT_S, probe_argv
from tenfold.launcher.worker.stop_signals import ignore_stop_requests

ASK_INTERFACES: Final = "interfaces"


def addresses_on(interface: str, backend: Backend, hosts: Sequence[Host]) -> dict[str, str]:
    """Return the IPv4 address of each host on `interface`, by the host's name.

    Args:
      interface: the name of the interface, the same on all hosts.
      backend: the back end, opened.
      hosts: the hosts; the workers of one count once.

    Raises:
      UserError: a host does not answer, or has no address there; the message lists what it has.
    """
    by_name = {host.name: host for host in hosts}
    with ThreadPoolExecutor(len(by_name)) as pool:
        found = pool.map(lambda host: _address_on(interface, backend, host), by_name.values())
        addresses = dict(zip(by_name, found, strict=True))
    holders: dict[str, str] = {}
    for name, address in addresses.items():
        first = holders.setdefault(address, name)
        if first != name:
            raise UserError(
                f"--network_interface={interface}: {first} and {name} both have {address} there: "
                "name an interface on which they reach each other"
            )
    return addresses


def _address_on(interface: str, backend: Backend, host: Host) -> str:
    command = backend.command(host, probe_argv(host, ASK_INTERFACES), {})
    try:
        answer = subprocess.run(
            command.argv, env={**os.environ, **command.env}, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, check=False,
            preexec_fn=ignore_stop_requests,
        )  # fmt: skip
        addresses: dict[str, str] = json.loads(answer.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise UserError(f"{host.name} does not say what addresses it has: {error}") from error
    if interface not in addresses:
        listed = ", ".join(f"{name} ({address})" for name, address in addresses.items())
        raise UserError(
            f"--network_interface={interface}: {host.name} has no such interface with an IPv4 "
            f"address; it has {listed or 'none'}"
        )
    return addresses[interface]
