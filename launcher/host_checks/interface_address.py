"""The addresses of hosts on one network interface."""

import json
import os
import subprocess
from collections.abc import Sequence
from typing import Final

from tenfold.data.errors import UserError
from tenfold.launcher.backends.base import Backend, Host
from tenfold.launcher.host_checks.look import PROBE_TIMEOUT_S, probe_argv

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
    processes = {}
    for host in {host.name: host for host in hosts}.values():
        command = backend.command(host, probe_argv(host, ASK_INTERFACES), {})
        processes[host.name] = subprocess.Popen(
            command.argv, env={**os.environ, **command.env}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
    try:
        addresses = {
            name: _address_on(interface, name, process) for name, process in processes.items()
        }
    finally:
        for process in processes.values():
            process.kill()
            process.communicate()
    holders: dict[str, str] = {}
    for name, address in addresses.items():
        first = holders.setdefault(address, name)
        if first != name:
            raise UserError(
                f"--network_interface={interface}: {first} and {name} both have {address} there: "
                "name an interface on which they reach each other"
            )
    return addresses


def _address_on(interface: str, name: str, process: "subprocess.Popen[str]") -> str:
    try:
        addresses: dict[str, str] = json.loads(process.communicate(timeout=PROBE_TIMEOUT_S)[0])
    except (ValueError, subprocess.TimeoutExpired) as error:
        raise UserError(f"{name} does not say what addresses it has: {error}") from error
    if interface not in addresses:
        listed = ", ".join(f"{each} ({address})" for each, address in addresses.items())
        raise UserError(
            f"--network_interface={interface}: {name} has no such interface with an IPv4 "
            f"address; it has {listed or 'none'}"
        )
    return addresses[interface]
