"""Places where jobs run, real ones on this machine: ssh, Slurm, simulated hosts."""

import contextlib
import getpass
import os
import re
import shlex
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tenfold.launcher.backends.base import Host
from tenfold.launcher.backends.netns import HostShape, NetnsBackend
from tenfold.launcher.backends.ports import pick_ports


@dataclass(frozen=True)
class Place:
    """Flags of `tenfold launch` for two hosts; `prefix` runs it where it reaches them."""

    flags: tuple[str, ...]
    prefix: tuple[str, ...] = ()


@pytest.fixture(scope="session")
def cgroups_of() -> Callable[[int], list[str]]:
    """Find the control groups of one launch; other launches run at the same time."""

    def find(pid: int) -> list[str]:
        folders = (Path(folder) for folder, _, _ in os.walk("/sys/fs/cgroup"))
        return [str(folder) for folder in folders if folder.name.startswith(f"tenfold-{pid}-")]

    return find


@pytest.fixture
def local_place() -> Place:
    return Place(("--backend=local",))


@pytest.fixture
def netns_place(netns_works: None) -> Place:
    return Place(("--backend=netns",))


# Runs a command as a user who can read this checkout but has no network privileges.
WITHOUT_CAPABILITIES = (
    "setpriv", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all,+dac_override,+setfcap",
)  # fmt: skip


@pytest.fixture
def rootless_netns_place(netns_works: None) -> Place:
    probe = [*WITHOUT_CAPABILITIES, "unshare", "-Urnm", "true"]
    if shutil.which("setpriv") is None or subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("this kernel gives user namespaces to root alone")
    return Place(("--backend=netns",), WITHOUT_CAPABILITIES)


NEW_BACKEND = Path(__file__).parents[3] / "docs" / "new-backend.md"


@pytest.fixture
def documented_place(tmp_path: Path) -> Place:
    """The back end of docs/new-backend.md, from a file of its own."""
    page = NEW_BACKEND.read_text()
    found = re.search(r"```python\n# (\w+\.py)\n(.*?)```", page, re.S)
    assert found, page
    file = tmp_path / found[1]
    file.write_text(found[2])
    return Place((f"--backend={file}", "--niceness=1"))


PLACES = ("local", "netns", "rootless_netns", "ssh", "slurm", "documented")


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> Place:
    """One place after the other."""
    found: Place = request.getfixturevalue(f"{request.param}_place")
    return found


@dataclass(frozen=True)
class SshHosts:
    """Simulated hosts with an sshd each; `config` logs in, `prefix` runs at the switch."""

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
# sshd needs /run/sshd for its chroot; it exists in this mount namespace only.
START_SSHD = "mount -t tmpfs none /run && mkdir /run/sshd && exec {sshd} -D -e -f {config}"


@pytest.fixture(scope="session")
def ssh_hosts(netns_works: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshHosts]:
    """Two simulated hosts with an sshd each, host-0 and host-1."""
    with _ssh_hosts(tmp_path_factory.mktemp("ssh"), ("host-0", "host-1")) as hosts:
        yield hosts


@pytest.fixture
def ssh_nodes(netns_works: None, tmp_path: Path) -> Iterator[SshHosts]:
    """The same, called node-a and node-b as in the guide."""
    with _ssh_hosts(tmp_path, ("node-a", "node-b")) as hosts:
        yield hosts


@contextlib.contextmanager
def _ssh_hosts(folder: Path, names: tuple[str, ...]) -> Iterator[SshHosts]:
    sshd = shutil.which("sshd") or shutil.which("/usr/sbin/sshd")
    if sshd is None or shutil.which("ssh-keygen") is None:
        pytest.skip("there is no sshd: apt-get install openssh-server openssh-client")
    for key in ("host_key", "user_key"):
        keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)]
        subprocess.run(keygen, check=True)
    known = (folder / "host_key.pub").read_text()
    (folder / "known_hosts").write_text(f"* {known}")
    (folder / "sshd_config").write_text(SSHD_CONFIG.format(folder=folder))
    (folder / "ssh_config").write_text(SSH_CONFIG.format(folder=folder))
    backend = NetnsBackend(HostShape())
    hosts = tuple(
        replace(host, name=name)
        for name, host in zip(names, backend.hosts(len(names)), strict=True)
    )
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
    end = time.monotonic() + 60
    while sum("listening" in log.read_text() for log in folder.glob("*.log")) < count:
        assert time.monotonic() < end, [log.read_text() for log in folder.glob("*.log")]
        time.sleep(0.02)


@pytest.fixture
def ssh_place(ssh_hosts: SshHosts) -> Place:
    names = ",".join(host.name for host in ssh_hosts.hosts)
    flags = ("--backend=ssh", f"--hosts={names}", f"--ssh_config={ssh_hosts.config}")
    return Place(flags, ssh_hosts.prefix)


# --- Slurm: a controller and two nodes, all on this machine ---

# No accounting and no cgroups. The nodes share this machine and differ by their ports.
SLURM_CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld}
SlurmUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
ReturnToService=2
KillWait=30
GresTypes=gpu
NodeName=sn0 NodeHostname={host} NodeAddr=127.0.0.1 Port={one} CPUs=2 RealMemory=2000 Gres=gpu:4
NodeName=sn1 NodeHostname={host} NodeAddr=127.0.0.1 Port={other} CPUs=2 RealMemory=2000 Gres=gpu:4
PartitionName=gpu Nodes=ALL MaxTime=INFINITE State=UP OverSubscribe=FORCE:8
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:8
"""


@pytest.fixture(scope="session")
def slurm_conf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The configuration of a running Slurm with two nodes."""
    programs = {name: shutil.which(name, path=PATHS) for name in ("munged", "slurmctld", "slurmd")}
    for name, program in programs.items():
        if program is None:
            pytest.skip(f"there is no {name}: apt-get install slurm-wlm munge")
    folder = Path(
        tempfile.mkdtemp(prefix="slurm-")
    )  # the path of a socket is limited to about 100 bytes
    (folder / "state").mkdir()
    (folder / "key").write_bytes(os.urandom(1024))
    (folder / "key").chmod(0o400)
    ctld, one, other = pick_ports("127.0.0.1", 3)
    conf = folder / "slurm.conf"
    conf.write_text(
        SLURM_CONF.format(
            host=socket.gethostname().partition(".")[0],
            user=getpass.getuser(),
            folder=folder,
            ctld=ctld,
            one=one,
            other=other,
        )
    )
    # The nodes only declare GPUs, so any device files will do.
    devices = ("null", "zero", "full", "urandom")
    gpus = "".join(f"NodeName=sn[0-1] Name=gpu File=/dev/{device}\n" for device in devices)
    (folder / "gres.conf").write_text(gpus)
    environment = {**os.environ, "SLURM_CONF": str(conf)}
    munged = [
        programs["munged"], "--foreground", "--force", f"--key-file={folder}/key",
        f"--socket={folder}/munge.socket", f"--pid-file={folder}/munged.pid",
        f"--log-file={folder}/munged.log", f"--seed-file={folder}/munged.seed",
    ]  # fmt: skip
    slurmds = [[programs["slurmd"], "-D", "-N", name] for name in ("sn0", "sn1")]
    with contextlib.ExitStack() as daemons:
        daemons.callback(shutil.rmtree, folder, ignore_errors=True)
        _start_daemon(daemons, munged, environment)
        _poll(lambda: (folder / "munge.socket").exists(), folder)
        for argv in ([programs["slurmctld"], "-D"], *slurmds):
            _start_daemon(daemons, argv, environment)
        states = ["sinfo", "--noheader", "--format=%D %t"]
        _poll(lambda: "2 idle" in _output(states, environment), folder)
        yield conf
        _end_all_jobs(conf)


PATHS = f"{os.environ['PATH']}:/usr/sbin:/sbin"


def _output(argv: list[str], environment: dict[str, str]) -> str:
    return subprocess.run(argv, capture_output=True, text=True, env=environment).stdout


def _start_daemon(daemons: contextlib.ExitStack, argv: list, environment: dict[str, str]) -> None:
    daemon = subprocess.Popen(
        argv, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )

    def stop() -> None:
        daemon.terminate()
        try:
            daemon.wait(10)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()

    daemons.callback(stop)


def _poll(condition: Callable[[], bool], folder: Path, timeout_s: float = 60) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        logs = "\n".join(log.read_text()[-2000:] for log in folder.glob("*.log"))
        assert time.monotonic() < end, logs
        time.sleep(0.05)


def _end_all_jobs(conf: Path) -> None:
    """Cancel all jobs before the nodes stop, which would leave running steps behind."""
    environment = {**os.environ, "SLURM_CONF": str(conf)}
    _poll(lambda: _ask_slurm_to_end(environment), conf.parent, 60)


def _ask_slurm_to_end(environment: dict[str, str]) -> bool:
    """Cancel all jobs, which fails while a job is ending; return whether none is left."""
    subprocess.run(["scancel", f"--user={getpass.getuser()}"], env=environment)
    queue = subprocess.run(
        ["squeue", "--noheader"], capture_output=True, text=True, env=environment
    )
    return queue.returncode == 0 and not queue.stdout.strip()


@pytest.fixture
def end_slurm_jobs() -> Callable[[Path], None]:
    """Cancel all jobs and wait until they are gone."""
    return _end_all_jobs


@pytest.fixture
def slurm_place(slurm_conf: Path) -> Iterator[Place]:
    """An allocation of both nodes, one task on each."""
    environment = {**os.environ, "SLURM_CONF": str(slurm_conf)}
    salloc = ["salloc", "--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=1", "--no-shell"]
    done = subprocess.run(salloc, capture_output=True, text=True, env=environment)
    found = re.search(r"Granted job allocation (\d+)", done.stderr)
    assert found, done.stderr
    variables = {
        "SLURM_CONF": str(slurm_conf),
        "SLURM_JOB_ID": found[1],
        "SLURM_JOB_NODELIST": "sn[0-1]",
        "SLURM_TASKS_PER_NODE": "1(x2)",
        "SLURM_JOB_CPUS_PER_NODE": "1(x2)",
    }
    yield Place(
        ("--backend=slurm",), ("env", *(f"{name}={text}" for name, text in variables.items()))
    )
    _end_all_jobs(slurm_conf)
