"""The places where jobs run, each as the flags and the command prefix that get there."""

import shutil
import subprocess
from dataclasses import dataclass

import pytest

from tenfold.data.errors import UserError
from tenfold.launcher.backends import load_backend


@dataclass(frozen=True)
class Place:
    """Flags of `tenfold launch` for two hosts; `prefix` runs it where it reaches them."""

    flags: tuple[str, ...]
    prefix: tuple[str, ...] = ()


@pytest.fixture(scope="session")
def netns_works() -> None:
    """Skips where this machine allows no network namespaces."""
    backend = load_backend("netns")
    try:
        with backend.opened(backend.hosts(1)):
            pass
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture
def local_place() -> Place:
    return Place(("--backend=local",))


@pytest.fixture
def netns_place(netns_works: None) -> Place:
    return Place(("--backend=netns",))


# A user who may read this checkout but has no say over networks.
WITHOUT_CAPABILITIES = (
    "setpriv", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all,+dac_override,+setfcap",
)  # fmt: skip


@pytest.fixture
def rootless_netns_place(netns_works: None) -> Place:
    probe = [*WITHOUT_CAPABILITIES, "unshare", "-Urnm", "true"]
    if shutil.which("setpriv") is None or subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("this kernel gives user namespaces to root alone")
    return Place(("--backend=netns",), WITHOUT_CAPABILITIES)


PLACES = ("local", "netns", "rootless_netns")


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> Place:
    """One place after the other."""
    found: Place = request.getfixturevalue(f"{request.param}_place")
    return found
