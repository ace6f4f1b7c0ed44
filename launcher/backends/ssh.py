"""The ssh back end: one connection per host, shared by all commands that run there.

With a tunnel, each worker's address is on the loopback device of its host, and every other host
has the same port there: sshd listens on it and passes connections on through the launcher's
machine to the worker's host.

ssh never prompts (BatchMode): keys, an agent or ~/.ssh/config must log in. Each command is a
tenfold agent, which ends its worker when the connection closes.
"""

import contextlib
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from tenfold.data.errors import UserError
from tenfold.data.runtime.scratch_folder import scratch_folder
from tenfold.launcher.backends.base import Backend, Host, Option
from tenfold.launcher.backends.host_list import HostEntry, fill_slots, parse_host_file, parse_hosts
from tenfold.launcher.backends.ports import far_ports
from tenfold.launcher.job.job_spec import HostCommand
from tenfold.launcher.worker.agent import die_with_parent
from tenfold.launcher.worker.stop_signals import ignore_stop_requests

OPTIONS: Final = (
    Option("hosts", "hosts, one worker each: a,me@b,c:2222"),
    Option(
        "host_file", "file of hosts, one a line: NAME slots=2 address=… user=… port=… python=…"
    ),
    Option("ssh_config", "ssh configuration file (ssh -F), instead of ~/.ssh/config"),
    Option(
        "tunnel",
        "carry the traffic between workers through the ssh connections, encrypted, by "
        "way of this machine; their ports are closed to the network",
        is_switch=True,
    ),
)

CONNECT_TIMEOUT_S: Final = 10
# ssh closes a connection after ALIVE_INTERVAL_S x ALIVE_COUNT seconds without an answer.
ALIVE_INTERVAL_S: Final = 3
ALIVE_COUNT: Final = 3
LOOPBACK_ADDRESS: Final = "127.0.0.1"
PORT_TRIES: Final = 5
_FOLDER_PREFIX: Final = "tenfold-ssh-"


class SshBackend:
    """Runs commands on listed hosts, over connections that exist while it is opened."""

    def __init__(
        self,
        entries: Sequence[HostEntry],
        *,
        config: str = "",
        tunnel: bool = False,
        reread: Callable[[], Sequence[HostEntry]] | None = None,
    ) -> None:
        """Take a list of hosts.

        Args:
          entries: the hosts.
          config: a configuration file of ssh, "" for the user's own.
          tunnel: whether workers reach each other through the connections alone.
          reread: returns the hosts that are listed now, where the list may change.
        """
        self._entries = {entry.name: entry for entry in entries}
        self._config = config
        self._tunnel = tunnel
        self._masters: dict[str, subprocess.Popen[str]] = {}
        self._forwards: list[tuple[Host, tuple[str, ...]]] = []
        self._links = 0
        self._reread = reread
        self._sockets: Path | None = None
        self._numbers: dict[str, int] = {}

    def hosts(self, num_workers: int) -> tuple[Host, ...]:
        """Return the host of each worker. Fills the slots of a host before those of the next."""
        return tuple(map(self._host, fill_slots(list(self._entries.values()), num_workers)))

    def list_hosts(self) -> tuple[Host, ...]:
        """Return all slots of the hosts, as the host file lists them now.

        Hosts that are added later have no shared connection: each command opens its own.

        Raises:
          UserError: the host file cannot be read, or is wrong.
        """
        if self._reread is None:
            listed: Sequence[HostEntry] = list(self._entries.values())
        else:
            listed = self._reread()
            # Hosts that are not listed any more are kept: they may still run a worker.
            self._entries = {**self._entries, **{entry.name: entry for entry in listed}}
        return tuple(map(self._host, fill_slots(listed, sum(entry.slots for entry in listed))))

    def _host(self, entry: HostEntry) -> Host:
        return Host(
            name=entry.name,
            address=LOOPBACK_ADDRESS if self._tunnel else entry.address or entry.name,
            python=entry.python or sys.executable,
            remote=True,
        )

    @contextlib.contextmanager
    def opened(self, hosts: Sequence[Host]) -> Iterator[None]:
        """Connect to all hosts at once, and close the connections at the end."""
        with scratch_folder(_FOLDER_PREFIX) as folder:
            self._sockets = folder
            try:
                self._connect_all(hosts)
                yield
            finally:
                for master in self._masters.values():
                    master.kill()  # masters ignore SIGTERM
                for master in self._masters.values():
                    _close(master)
                self._masters, self._forwards, self._sockets = {}, [], None

    def _connect_all(self, hosts: Sequence[Host]) -> None:
        """Connect to the hosts that have no connection, all at once."""
        new = {}
        for host in hosts:
            master = self._masters.get(host.name)
            if master is not None and master.poll() is not None:  # it has broken
                _close(self._masters.pop(host.name))
                self._socket(host.name).unlink(missing_ok=True)
            if host.name not in self._masters:
                new[host.name] = self._masters[host.name] = self._connect(host)
        deadline = time.monotonic() + 2 * CONNECT_TIMEOUT_S
        for name, master in new.items():
            self._wait_for(name, master, deadline)

    def _connect(self, host: Host) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [*self._ssh(host, "-o", "ControlMaster=yes", "-N"), "--", self._destination(host)],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=_outlast_signals,
        )

    def _wait_for(self, name: str, master: "subprocess.Popen[str]", deadline: float) -> None:
        socket = self._socket(name)
        while not socket.exists():
            if master.poll() is not None or time.monotonic() > deadline:
                master.kill()
                lines = master.stderr.read().strip().splitlines()  # type: ignore[union-attr]
                why = lines[-1] if lines else f"no answer in {2 * CONNECT_TIMEOUT_S} s"
                raise UserError(
                    f"host '{name}' cannot be reached by ssh: {why.strip()} "
                    f"(check with: ssh -o BatchMode=yes {name} true)"
                )
            time.sleep(0.01)

    def _socket(self, name: str) -> Path:
        assert self._sockets is not None, "the back end is not opened"
        # Numbers, not names: the path of a socket is limited to about a hundred bytes.
        return self._sockets / str(self._numbers.setdefault(name, len(self._numbers)))

    def _destination(self, host: Host) -> str:
        entry = self._entries[host.name]
        return f"{entry.user}@{entry.name}" if entry.user else entry.name

    def _ssh(self, host: Host, *more: str) -> tuple[str, ...]:
        settings = (
            "BatchMode=yes",
            f"ConnectTimeout={CONNECT_TIMEOUT_S}",
            f"ServerAliveInterval={ALIVE_INTERVAL_S}",
            f"ServerAliveCountMax={ALIVE_COUNT}",
            f"ControlPath={self._socket(host.name)}",
            "ForwardAgent=no",
            "ForwardX11=no",
        )
        words = [word for setting in settings for word in ("-o", setting)]
        config = ("-F", self._config) if self._config else ()
        entry = self._entries[host.name]
        port = ("-p", str(entry.port)) if entry.port else ()
        return ("ssh", *config, *words, *port, "-T", *more)

    def choose_ports(self, hosts: Sequence[Host], first_port: int | None) -> tuple[int, ...]:
        """Return ports; the check of the hosts finds out whether they are free.

        With a tunnel, each port is carried to all other hosts until the next call.

        Raises:
          UserError: a port is taken on another host than the worker's.
        """
        for number in range(PORT_TRIES):
            ports = far_ports(len(hosts), first_port)
            if not self._tunnel or self._sockets is None:
                break
            try:
                self._carry(hosts, ports)
                break
            except UserError:
                if first_port is not None or number == PORT_TRIES - 1:
                    raise
        return ports

    def _carry(self, hosts: Sequence[Host], ports: Sequence[int]) -> None:
        """Have every other host listen on each worker's port, on behalf of the worker.

        Raises:
          UserError: a host does not do so.
        """
        assert self._sockets is not None
        self._connect_all(hosts)
        for host, forward in self._forwards:
            if self._masters[host.name].poll() is None:
                self._control("cancel", host, forward, check=False)
        self._forwards = []
        self._links += 1
        by_name = {host.name: host for host in hosts}
        for host, port in zip(hosts, ports, strict=True):
            # A socket in a folder that only this user can enter, in place of a port here.
            here = str(self._sockets / f"{self._links}-{port}")
            self._forward(host, ("-L", f"{here}:{LOOPBACK_ADDRESS}:{port}"))
            for other in by_name.values():
                if other.name != host.name:
                    self._forward(other, ("-R", f"{LOOPBACK_ADDRESS}:{port}:{here}"))

    def _forward(self, host: Host, forward: tuple[str, ...]) -> None:
        self._control("forward", host, forward, check=True)
        self._forwards.append((host, forward))

    def _control(self, what: str, host: Host, forward: tuple[str, ...], *, check: bool) -> None:
        try:
            subprocess.run(
                [*self._ssh(host, "-O", what, *forward), "--", self._destination(host)],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=2 * CONNECT_TIMEOUT_S,
                check=check,
            )
        except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as error:
            lines = str(error.stderr or "").strip().splitlines()
            why = lines[0].strip() if lines else f"no answer in {2 * CONNECT_TIMEOUT_S} s"
            raise UserError(
                f"--tunnel: {host.name} does not carry {forward[1].partition(':/')[0]}: {why} "
                "(its sshd needs AllowTcpForwarding yes, and the port must be free there)"
            ) from error

    def command(self, host: Host, argv: Sequence[str], env: Mapping[str, str]) -> HostCommand:
        """Return ssh with `argv`, quoted for the host's shell, over the open connection."""
        setting = ["env", *(f"{name}={value}" for name, value in env.items())] if env else []
        command = shlex.join(["exec", *setting, *argv])
        ssh = self._ssh(host, "-o", "ControlMaster=no")
        return HostCommand((*ssh, "--", self._destination(host), command))


def _close(master: "subprocess.Popen[str]") -> None:
    master.wait()
    master.stderr.close()  # type: ignore[union-attr]


def _outlast_signals() -> None:
    """Keep a connection until the launcher closes it, but not longer than the launcher lives.

    Ctrl-C reaches the whole process group, and the workers need their connections to stop.
    """
    ignore_stop_requests()
    die_with_parent()


def create(options: Mapping[str, str]) -> Backend:
    """Return the back end.

    Raises:
      UserError: no hosts are given, or the list is wrong.
    """
    return SshBackend(
        read_entries(options),
        config=options.get("ssh_config", ""),
        tunnel="tunnel" in options,
        reread=partial(read_entries, options) if options.get("host_file") else None,
    )


def read_entries(options: Mapping[str, str]) -> tuple[HostEntry, ...]:
    """Return the hosts of --hosts or --host_file.

    Raises:
      UserError: neither or both are given, or the list is wrong.
    """
    listed, file = options.get("hosts"), options.get("host_file")
    if bool(listed) == bool(file):
        raise UserError("--backend=ssh needs --hosts=a,b,c or --host_file=FILE (one of them)")
    if listed:
        return parse_hosts(listed)
    assert file is not None
    try:
        text = Path(file).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"host_file '{file}' cannot be read: {error}") from error
    return parse_host_file(text, where=file)
