"""Workers that exchange over the address of one interface of each host."""

import json
from pathlib import Path
from typing import Any

import pytest

from tenfold.launcher.backends.local import LocalBackend
from tenfold.launcher.host_checks.interface_address import addresses_on

pytestmark = pytest.mark.timeout(120)


def test_address_of_the_loopback_interface() -> None:
    backend = LocalBackend()
    assert addresses_on("lo", backend, backend.hosts(2)) == {"localhost": "127.0.0.1"}


def test_workers_get_the_address_of_the_interface(
    netns_works: None, tenfold: Any, tmp_path: Path
) -> None:
    show = "echo $NCCL_SOCKET_IFNAME $TF_CONFIG"
    flags = ("--backend=netns", "--num_workers=2", "--network_interface=eth0")
    done = tenfold("launch", *flags, f"--run_dir={tmp_path}/run", "--", "sh", "-c", show)
    assert done.status == 0, done.err
    line = next(line for line in done.err.splitlines() if line.startswith("[worker 1] "))
    _, _, interface, config = line.split(" ", 3)
    assert interface == "eth0"
    workers = json.loads(config)["cluster"]["worker"]
    assert [address.partition(":")[0] for address in workers] == ["10.83.0.1", "10.83.0.2"]


@pytest.mark.parametrize(
    ("interface", "words"),
    [("eth7", "host-0 has no such interface"), ("lo", "host-0 and host-1 both have 127.0.0.1")],
)
def test_unusable_interfaces_are_refused(
    netns_works: None, tenfold: Any, interface: str, words: str
) -> None:
    flags = ("--backend=netns", "--num_workers=2", f"--network_interface={interface}")
    done = tenfold("launch", *flags, "--", "true")
    assert done.status == 2
    assert f"tenfold: --network_interface={interface}: {words}" in done.err.splitlines()[-1]
