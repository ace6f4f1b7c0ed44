"""The ssh back end: one connection per host, shared by all commands that run there.

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
)

CONNECT_TIMEOUT_S: Final = 10
# ssh closes a connection after ALIVE_INTERVAL_S x ALIVE_COUNT seconds without an answer.
ALIVE_INTERVAL_S: Final = 3
ALIVE_COUNT: Final = 3
_FOLDER_PREFIX: Final = "tenfold-ssh-"


class SshBackend:
    """Runs commands on listed hosts, over connections that exist while it is opened."""

    def __init__(
        self,
        entries: Sequence[HostEntry],
        *,
        config: str = "",
        reread: Callable[[], Sequence[HostEntry]] | None = None,
    ) -> None:
        """Take a list of hosts.

        Args:
          entries: the hosts.
          config: a configuration file of ssh, "" for the user's own.
          reread: returns the hosts that are listed now, where the list may change.
        """
        self._entries = {entry.name: entry for entry in entries}
        self._config = config
        self._reread = reread
        self._sockets: Path | None = None
        self._numbers: dict[str, int] = {}

    def hosts(self, num_workers: int) -> tuple[Host, ...]:
        """Return the host of each worker. Fills the slots of a host before those of the next."""
        return tuple(map(_host, fill_slots(list(self._entries.values()), num_workers)))

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
        return tuple(map(_host, fill_slots(listed, sum(entry.slots for entry in listed))))

    @contextlib.contextmanager
    def opened(self, hosts: Sequence[Host]) -> Iterator[None]:
        """Connect to all hosts at once, and close the connections at the end."""
        with scratch_folder(_FOLDER_PREFIX) as folder:
            self._sockets = folder
            masters: dict[str, subprocess.Popen[str]] = {}
            try:
                for host in hosts:
                    if host.name not in masters:
                        masters[host.name] = self._connect(host)
                deadline = time.monotonic() + 2 * CONNECT_TIMEOUT_S
                for name, master in masters.items():
                    self._wait_for(name, master, deadline)
                yield
            finally:
                for master in masters.values():
                    master.kill()  # masters ignore SIGTERM
                for master in masters.values():
                    master.wait()
                    master.stderr.close()  # type: ignore[union-attr]
                self._sockets = None

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
        """Return ports; the check of the hosts finds out whether they are free."""
        return far_ports(len(hosts), first_port)

    def command(self, host: Host, argv: Sequence[str], env: Mapping[str, str]) -> HostCommand:
        """Return ssh with `argv`, quoted for the host's shell, over the open connection."""
        setting = ["env", *(f"{name}={value}" for name, value in env.items())] if env else []
        command = shlex.join(["exec", *setting, *argv])
        ssh = self._ssh(host, "-o", "ControlMaster=no")
        return HostCommand((*ssh, "--", self._destination(host), command))


def _host(entry: HostEntry) -> Host:
    return Host(
        name=entry.name,
        address=entry.address or entry.name,
        python=entry.python or sys.executable,
        remote=True,
    )


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
