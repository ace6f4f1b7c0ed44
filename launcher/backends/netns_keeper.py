"""The keeper: a process that creates simulated hosts and removes them when its input closes.

One file with the standard library only, run as its own process. The namespaces have no names
outside of it: they live as long as the keeper and its children, so the kernel removes them
however the keeper ends. The keeper itself removes the rest (processes left on a host, control
groups) when its standard input closes, which also happens when its parent is killed.

The first line of standard input is the specification, a JSON object:

- hosts: for each host its name, address, cgroups (each a path and the files to write) and freezer
  (the path of a control group, the file that freezes it, the texts that freeze and thaw; null
  where there is none)
- prefix: bits of the network part of the addresses; switch: the address of the switch
- shape: argument lists of ``tc qdisc add dev DEVICE`` for a host's own device
- switch_shape: the same for the switch's end of its cable

The keeper answers with one line: pids (per host the process that holds its namespaces), switch (a
process in the network of the switch) and user (whether they are in a user namespace), or error and
step. Every further line is a command, answered by one line: ``{"unplug": HOST}``, ``heal``,
``freeze`` or ``thaw``, with the host's number.
"""

import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any, Final

_CLONE_NEWNS: Final = 0x00020000
_CLONE_NEWUTS: Final = 0x04000000
_CLONE_NEWUSER: Final = 0x10000000
_CLONE_NEWNET: Final = 0x40000000
_MS_BIND: Final = 0x1000
_MS_PRIVATE_REC: Final = 0x40000 | 0x4000
_PR_SET_PDEATHSIG: Final = 1
CLEAN_UP_S: Final = 5.0

_libc = ctypes.CDLL(None, use_errno=True)


class StepError(Exception):
    """A step of creating hosts has failed; `step` names it for the hint to the user."""

    def __init__(self, step: str, why: str) -> None:
        super().__init__(why)
        self.step = step


def _checked(step: str, result: int) -> None:
    if result != 0:
        raise StepError(step, os.strerror(ctypes.get_errno()))


def unshare(flags: int) -> None:
    """Move this process into new namespaces."""
    _checked("unshare", _libc.unshare(flags))


def _mount(source: str, target: str, flags: int) -> None:
    _checked("mount", _libc.mount(source.encode(), target.encode(), None, flags, None))


def enter_user_namespace() -> None:
    """Move this process into a new user namespace, as its root (man 7 user_namespaces)."""
    uid, gid = os.geteuid(), os.getegid()
    unshare(_CLONE_NEWUSER)
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"0 {uid} 1"),
        ("gid_map", f"0 {gid} 1"),
    ):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)


def own_namespaces(flags: int) -> bool:
    """Move this process into new namespaces; return whether that needed a user namespace."""
    try:
        unshare(flags)
        in_user_namespace = False
    except StepError:
        enter_user_namespace()
        unshare(flags)
        in_user_namespace = True
    _mount("none", "/", _MS_PRIVATE_REC)
    return in_user_namespace


def mount_hosts_file(hosts: list[dict[str, Any]]) -> None:
    """Mounts a file with all hosts' names over /etc/hosts, in this mount namespace only."""
    with open("/etc/hosts", encoding="utf-8", errors="replace") as known:
        lines = [known.read().rstrip("\n")]
    lines += [f"{host['address']}\t{host['name']}" for host in hosts]
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".hosts") as file:
        file.write("\n".join(lines) + "\n")
        file.flush()
        os.chmod(file.name, 0o644)
        _mount(file.name, "/etc/hosts", _MS_BIND)


def run_ip(lines: list[str]) -> None:
    """Run `ip` commands in this process's network."""
    done = subprocess.run(
        ["ip", "-batch", "-"], input="\n".join(lines) + "\n", text=True, capture_output=True
    )
    if done.returncode:
        raise StepError("ip", done.stderr.strip().splitlines()[0])


def shape(device: str, qdiscs: list[list[str]]) -> None:
    """Add queueing disciplines to `device`."""
    for qdisc in qdiscs:
        argv = ["tc", "qdisc", "add", "dev", device, *qdisc]
        done = subprocess.run(argv, text=True, capture_output=True)
        if done.returncode:
            kind = next(word for word in qdisc if word in ("netem", "tbf"))
            raise StepError(kind, f"{' '.join(argv)}: {done.stderr.strip().rstrip('.')}")


class SimulatedHost:
    """One host: a child process that holds its namespaces.

    The child sets the host up in steps. After each it reports on the pipe `_ready` and waits on
    the pipe `_go`, while the keeper connects the cable, which needs the child's namespaces.
    """

    def __init__(self, number: int, spec: dict[str, Any]) -> None:
        self.device = f"host{number}"
        ready_read, ready_write = os.pipe()
        go_read, go_write = os.pipe()
        keeper = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(go_write)
            _run_host(spec, number, go_read, ready_write, keeper)
        os.close(ready_write)
        os.close(go_read)
        self._ready, self._go = ready_read, go_write

    def wait(self) -> None:
        """Wait until the child has finished its current step."""
        answer = json.loads(os.read(self._ready, 65536) or '{"step": "fork", "why": "it died"}')
        if answer:
            raise StepError(answer["step"], answer["why"])

    def start_next_step(self) -> None:
        """Lets the child start its next step."""
        os.write(self._go, b"\n")

    @property
    def network(self) -> str:
        """The kernel's name of its network namespace."""
        return os.readlink(f"/proc/{self.pid}/ns/net")


def _run_host(spec: dict[str, Any], number: int, go: int, ready: int, keeper: int) -> None:
    """Run the child: create namespaces, then (with a cable) take its address, then wait."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    host = spec["hosts"][number]

    def create_namespaces() -> None:
        unshare(_CLONE_NEWNET | _CLONE_NEWNS | _CLONE_NEWUTS)
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != keeper:  # it died before PDEATHSIG was set
            os._exit(1)
        socket.sethostname(host["name"])

    def take_address() -> None:
        address = f"{host['address']}/{spec['prefix']}"
        run_ip(["link set lo up", f"addr add {address} dev eth0", "link set eth0 up"])
        shape("eth0", spec["shape"])

    for step in (create_namespaces, take_address):
        os.write(ready, json.dumps(_failure(step)).encode())
        os.read(go, 1)
    while True:
        signal.pause()


def _failure(step: Callable[[], None]) -> dict[str, str]:
    """Run a step; return its failure as step and reason, {} where it succeeds."""
    try:
        step()
    except StepError as error:
        return {"step": error.step, "why": str(error)}
    except OSError as error:
        return {"step": "system", "why": str(error)}
    return {}


class Freezer:
    """The control group that stops and continues all processes of a host together."""

    def __init__(self, spec: dict[str, str]) -> None:
        self.path = spec["path"]
        self._file, self._frozen, self._thawed = spec["file"], spec["frozen"], spec["thawed"]

    def hold(self, find: Callable[[], list[int]]) -> None:
        """Move the processes that `find` returns into the group and freezes it.

        Repeats until none is outside: processes fork meanwhile, and children start in the group
        of their parent.

        Raises:
          OSError: this process may not use control groups.
        """
        os.makedirs(self.path, exist_ok=True)
        until = time.monotonic() + CLEAN_UP_S
        while (outside := set(find()) - self._members()) and time.monotonic() < until:
            for pid in outside:
                with contextlib.suppress(ProcessLookupError):
                    self._write("cgroup.procs", str(pid))
        self._write(self._file, self._frozen)

    def release(self) -> None:
        """Continue the processes."""
        self._write(self._file, self._thawed)

    def _members(self) -> set[int]:
        with open(os.path.join(self.path, "cgroup.procs"), encoding="ascii") as file:
            return {int(line) for line in file}

    def _write(self, name: str, text: str) -> None:
        with open(os.path.join(self.path, name), "w", encoding="ascii") as file:
            file.write(text)


class Keeper:
    """All hosts, and the switch in this process's own network namespace."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self._spec = spec
        self._hosts: list[SimulatedHost] = []
        self._frozen: dict[int, Freezer | None] = {}  # None: stopped by signals
        self._freezer_paths: set[str] = set()

    def create(self) -> dict[str, Any]:
        """Create everything; return the answer to the specification."""
        self._make_cgroups()
        user = own_namespaces(_CLONE_NEWNET | _CLONE_NEWNS)
        mount_hosts_file(self._spec["hosts"])
        for number in range(len(self._spec["hosts"])):
            self._hosts.append(SimulatedHost(number, self._spec))
        for host in self._hosts:
            host.wait()
        run_ip(self._cables())
        for host in self._hosts:
            shape(host.device, self._spec["switch_shape"])
            host.start_next_step()
        for host in self._hosts:
            host.wait()
        return {"pids": [host.pid for host in self._hosts], "switch": os.getpid(), "user": user}

    def _cables(self) -> list[str]:
        lines = [
            "link set lo up",
            "link add switch type bridge",
            f"addr add {self._spec['switch']}/{self._spec['prefix']} dev switch",
            "link set switch up",
        ]
        for host in self._hosts:
            lines += [
                f"link add {host.device} type veth peer name eth0 netns {host.pid}",
                f"link set {host.device} master switch up",
            ]
        return lines

    def _cgroups(self) -> list[dict[str, Any]]:
        return [group for host in self._spec["hosts"] for group in host["cgroups"]]

    def _make_cgroups(self) -> None:
        for group in self._cgroups():
            try:
                os.mkdir(group["path"])
                for name, text in group["files"].items():
                    with open(os.path.join(group["path"], name), "w", encoding="ascii") as file:
                        file.write(text)
            except OSError as error:
                raise StepError("cgroup", str(error)) from error

    def execute(self, command: dict[str, int]) -> None:
        """Executes one command."""
        ((verb, number),) = command.items()
        host = self._hosts[number]
        if verb in ("unplug", "heal"):
            run_ip([f"link set {host.device} {'down' if verb == 'unplug' else 'up'}"])
        elif verb == "freeze":
            self._freeze(number)
        elif verb == "thaw":
            self._thaw(number)

    def _freeze(self, number: int) -> None:
        host, spec = self._hosts[number], self._spec["hosts"][number]["freezer"]
        freezer = Freezer(spec) if spec else None
        try:
            if freezer:
                freezer.hold(lambda: self._processes_on(host))
                self._freezer_paths.add(freezer.path)
        except OSError:  # control groups need root; signals do not
            freezer = None
        if freezer is None:
            self._signal_all(host, signal.SIGSTOP)
        self._frozen[number] = freezer

    def _thaw(self, number: int) -> None:
        if number not in self._frozen:
            return
        if freezer := self._frozen.pop(number):
            freezer.release()
        else:
            self._signal_all(self._hosts[number], signal.SIGCONT)

    def _processes_on(self, host: SimulatedHost) -> list[int]:
        """All processes on a host except the one that holds its namespaces."""
        return [pid for pid in _processes_in(host.network) if pid != host.pid]

    def _signal_all(self, host: SimulatedHost, number: int) -> int:
        """Signal all processes on a host; return their number."""
        pids = self._processes_on(host)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
        return len(pids)

    def clean_up(self) -> None:
        """Kill the processes left on the hosts and remove the control groups."""
        for number in list(self._frozen):  # a frozen process does not even die of SIGKILL
            self._thaw(number)
        _wait_until(lambda: not sum(self._signal_all(h, signal.SIGKILL) for h in self._hosts))
        paths = self._freezer_paths.union(group["path"] for group in self._cgroups())
        _wait_until(lambda: sum(map(_is_removed, paths)) == len(paths))
        for host in self._hosts:
            os.kill(host.pid, signal.SIGKILL)


def _wait_until(is_done: Callable[[], bool]) -> None:
    """Poll for at most CLEAN_UP_S, but at least once, however slow this machine is."""
    until = time.monotonic() + CLEAN_UP_S
    while not is_done() and time.monotonic() < until:
        time.sleep(0.01)


def _processes_in(network: str) -> list[int]:
    found = []
    for entry in filter(str.isdecimal, os.listdir("/proc")):
        # Not readable: zombies, which have no network, and other users' processes, never in ours.
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/{entry}/ns/net") == network:
                found.append(int(entry))
    return found


def _is_removed(cgroup: str) -> bool:
    try:
        os.rmdir(cgroup)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _answer(document: dict[str, Any]) -> None:
    print(json.dumps(document), flush=True)


def main() -> int:
    """Create hosts, execute commands, clean up; return 1 where creating failed."""
    # The launcher decides when the hosts go; a signal to its process group must not.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    line = sys.stdin.readline()
    if not line:
        return 1
    keeper = Keeper(json.loads(line))
    try:
        _answer(keeper.create())
        for line in sys.stdin:
            failure = _failure(lambda: keeper.execute(json.loads(line)))  # noqa: B023
            _answer({"error": failure["why"], "step": failure["step"]} if failure else {})
    except StepError as error:
        _answer({"error": str(error), "step": error.step})
        return 1
    except OSError as error:
        _answer({"error": str(error), "step": "system"})
        return 1
    finally:
        keeper.clean_up()
    return 0


if __name__ == "__main__":
    sys.exit(main())
