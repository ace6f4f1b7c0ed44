"""The places where jobs run, each as the flags and the command prefix that get there."""

import contextlib
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tenfold.data.errors import UserError
from tenfold.launcher.backends import Host, load_backend
from tenfold.launcher.backends.netns import HostShape, NetnsBackend


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


PLACES = ("local", "netns", "rootless_netns", "ssh")


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> Place:
    """One place after the other."""
    found: Place = request.getfixturevalue(f"{request.param}_place")
    return found


@dataclass(frozen=True)
class SshHosts:
    """Simulated hosts with an sshd on each; `config` lets in, `prefix` runs at the switch."""

    backend: NetnsBackend
    hosts: tuple[Host, ...]
    config: Path
    prefix: tuple[str, ...]


SSHD_CONFIG = """
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/user_key.pub
PasswordAuthentication no
KbdInteractiveAuthentication no
PidFile none
StrictModes no
"""
SSH_CONFIG = """
Host *
    IdentityFile {folder}/user_key
    IdentitiesOnly yes
    UserKnownHostsFile {folder}/known_hosts
    LogLevel ERROR
"""
# sshd wants its folder to change its root to; it gets one that exists in its mount alone.
START_SSHD = "mount -t tmpfs none /run && mkdir /run/sshd && exec {sshd} -D -e -f {config}"


@pytest.fixture(scope="session")
def ssh_hosts(netns_works: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshHosts]:
    """Two simulated hosts with an sshd each."""
    sshd = shutil.which("sshd") or shutil.which("/usr/sbin/sshd")
    if sshd is None or shutil.which("ssh-keygen") is None:
        pytest.skip("there is no sshd: apt-get install openssh-server openssh-client")
    folder = tmp_path_factory.mktemp("ssh")
    for key in ("host_key", "user_key"):
        keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)]
        subprocess.run(keygen, check=True)
    known = (folder / "host_key.pub").read_text()
    (folder / "known_hosts").write_text(f"* {known}")
    (folder / "sshd_config").write_text(SSHD_CONFIG.format(folder=folder))
    (folder / "ssh_config").write_text(SSH_CONFIG.format(folder=folder))
    backend = NetnsBackend(HostShape())
    hosts = backend.hosts(2)
    with backend.opened(hosts), contextlib.ExitStack() as servers:
        start = START_SSHD.format(sshd=sshd, config=folder / "sshd_config")
        for host in hosts:
            command = backend.command(host, ["unshare", "--mount", "sh", "-c", start], {})
            log = servers.enter_context((folder / f"{host.name}.log").open("w"))
            server = servers.enter_context(subprocess.Popen(command.argv, stderr=log))
            servers.callback(server.kill)
        _wait_for_servers(folder, len(hosts))
        enter = f'exec {shlex.join(backend.switch_command([]))} env -C "$PWD" "$@"'
        yield SshHosts(backend, hosts, folder / "ssh_config", ("sh", "-c", enter, "sh"))


def _wait_for_servers(folder: Path, count: int) -> None:
    end = time.monotonic() + 20
    while sum("listening" in log.read_text() for log in folder.glob("*.log")) < count:
        assert time.monotonic() < end, [log.read_text() for log in folder.glob("*.log")]
        time.sleep(0.02)


@pytest.fixture
def ssh_place(ssh_hosts: SshHosts) -> Place:
    names = ",".join(host.name for host in ssh_hosts.hosts)
    flags = ("--backend=ssh", f"--hosts={names}", f"--ssh_config={ssh_hosts.config}")
    return Place(flags, ssh_hosts.prefix)
