"""The agent: runs on the worker's host, starts the worker, and kills all that it leaves behind.

One file that needs the standard library alone: it starts in 0.1 s and runs where tenfold is not
installed. The first line of its standard input is the specification, a JSON object: argv, env
(additions), cwd, worker, heartbeat_timeout_s (0: none), port, and where they apply gpus (see
`gpus_of_slot`) and loopback (the port is for this machine alone). Every further line is a command,
one JSON object with one key:

- signal: a number, sent to the worker's process group
- stop: seconds between SIGTERM and SIGKILL
- limit_file_bytes: the most that a file of the worker can grow to (the fault disk_full)

Empty lines are heartbeats. When standard input closes, or no heartbeat has arrived in time, the
agent kills the worker and everything that it started. On standard output the agent forwards
whole lines of the worker's standard output and error, and sends messages of its own in the same
format (launcher/job/events.py):

- started: pid
- stat (once a second): rss_bytes, state (a letter of /proc/PID/stat), cpu_s, listening,
  links_down (network devices that have lost their link since the start)
- exit: code (negative for a signal), oom (the kernel's out-of-memory killer struck),
  by_us (the agent had been told to stop the worker)

Two processes: `guard` forks the agent proper and waits for it, so that one of them kills the
worker's processes even if the other is killed.

On the launcher's own machine a single process runs this file with SERVE and a socket as its
arguments, and forks the agents of all workers (`serve`): starting Python for each would take most
of the time that a launch takes.
"""

import contextlib
import ctypes
import fcntl
import itertools
import json
import os
import re
import resource
import selectors
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NoReturn

MARK: Final = "\x1e"
SERVE: Final = "serve"
READY: Final = b"ready"
STAT_INTERVAL_S: Final = 1.0
PORT_INTERVAL_S: Final = 0.05
DRAIN_S: Final = 0.3
EXIT_CANNOT_START: Final = 127  # as in sh
MAX_LINE_BYTES: Final = 1 << 20
NVIDIA_SMI_TIMEOUT_S: Final = 30.0  # it loads the driver, which may take seconds

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_LISTEN: Final = "0A"  # the state column of /proc/net/tcp
_PIDFD_GETFD: Final = 438  # the number of the system call, the same on every architecture
_SIOCGIFFLAGS: Final = 0x8913  # man 7 netdevice
_IFF_UP, _IFF_LOOPBACK, _IFF_RUNNING = 0x1, 0x8, 0x40


def set_child_subreaper() -> None:
    """Make orphaned descendants children of this process (Linux only; elsewhere do nothing)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def prepare_worker() -> None:
    """Set up a worker between fork and exec: own process group, default signals, parent death."""
    os.setpgid(0, 0)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    die_with_parent()


def die_with_parent() -> None:
    """Have the kernel kill this process when the thread that started it ends (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def descendants(root: int) -> list[int]:
    """Return the pids of all living descendants of `root`, zombies left out."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc") if os.path.isdir("/proc") else []:
        fields = _stat_fields(entry) if entry.isdecimal() else None
        if fields and fields[0] != "Z":
            children.setdefault(int(fields[1]), []).append(int(entry))
    found: list[int] = []
    level = [root]
    while level:
        level = [child for pid in level for child in children.get(pid, ())]
        found += level
    return found


def has_children() -> bool:
    """Whether this process has a child, running or not yet reaped."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def kill_descendants() -> None:
    """Kill all descendants, also those in sessions of their own, until none is left (or 5 s).

    A subreaper without a child has no descendants: mostly nothing is left to look for in /proc.
    """
    until = time.monotonic() + 5
    while has_children() and (remaining := descendants(os.getpid())) and time.monotonic() < until:
        for pid in remaining:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        reap()
        time.sleep(0.005)


def guard(*streams: int) -> None:
    """Fork, and return in the child; this process then waits for the child and cleans up.

    It closes its `streams`, waits, kills the descendants that the child has left and exits. So
    nothing survives even if agent and supervisor are killed at the same moment.
    """
    # The kernel sends SIGHUP to an orphaned process group that has a stopped process.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    child = os.fork()
    set_child_subreaper()
    if child == 0:
        return
    for number in (signal.SIGTERM, signal.SIGINT):  # the child handles them
        signal.signal(number, signal.SIG_IGN)
    for stream in streams:
        os.close(stream)
    while (ended := os.waitpid(-1, 0))[0] != child:
        pass
    kill_descendants()
    os._exit(int(ended[1] != 0))


def _stat_fields(pid: int | str) -> list[str] | None:
    """Return the fields of /proc/PID/stat after the command: state, ppid, … (man 5 proc)."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return None


def oom_kills() -> int:
    """Return how often the kernel's out-of-memory killer has struck on this host since boot."""
    try:
        with open("/proc/vmstat", encoding="ascii") as file:
            return next((int(line.split()[1]) for line in file if line[:9] == "oom_kill "), 0)
    except OSError:
        return 0


def is_listening(port: int) -> bool:
    """Whether a TCP socket in this network namespace listens on `port`."""
    return bool(listening_sockets(port))


def listening_sockets(port: int) -> set[str]:
    """Return the inodes of the TCP sockets in this network namespace that listen on `port`."""
    wanted, found = f":{port:04X}", set()
    for table in ("/proc/self/net/tcp", "/proc/self/net/tcp6"):
        with contextlib.suppress(OSError), open(table, encoding="ascii") as file:
            for line in file:
                fields = line.split()
                if fields[1].endswith(wanted) and fields[3] == _LISTEN:
                    found.add(fields[9])
    return found


def close_to_other_machines(root: int, port: int) -> bool:
    """Restrict the sockets on which a process and its descendants listen to this machine.

    TensorFlow's servers listen on all interfaces. A listening socket that is bound to the
    loopback device afterwards (SO_BINDTODEVICE, man 7 socket) refuses connections from elsewhere.
    pidfd_getfd (man 2) gives this process, an ancestor, a copy of the descriptor.

    Args:
      root: the pid of the process.
      port: the port.

    Returns:
      Whether one of them listens on `port`.

    Raises:
      OSError: the kernel does not allow it.
    """
    inodes = listening_sockets(port)
    names = {f"socket:[{inode}]" for inode in inodes}
    found = False
    for pid in [root, *descendants(root)] if inodes else []:
        for fd in _descriptors(pid, names):
            with _copy_of(pid, fd) as copy:
                copy.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo\0")
            found = True
    return found


def _descriptors(pid: int, names: set[str]) -> list[int]:
    """Return the file descriptors of a process that are the sockets `names`."""
    found = []
    with contextlib.suppress(OSError):  # it has ended
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{pid}/fd/{fd}") in names:
                    found.append(int(fd))
    return found


def _copy_of(pid: int, fd: int) -> socket.socket:
    pidfd = os.pidfd_open(pid)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        copy = libc.syscall(_PIDFD_GETFD, pidfd, fd, 0)
        if copy < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"pidfd_getfd: {os.strerror(number)}")
        return socket.socket(fileno=copy)
    finally:
        os.close(pidfd)


def network_links() -> dict[str, bool]:
    """Return whether each network device of this host that is up has a link to its peer.

    Linux only, elsewhere empty; the loopback device is left out.
    """
    links = {}
    if sys.platform != "linux":
        return links
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        for _, name in socket.if_nameindex():
            request = struct.pack("16sh14x", name.encode(), 0)
            with contextlib.suppress(OSError):  # the device has just been removed
                answer = fcntl.ioctl(handle, _SIOCGIFFLAGS, request)
                flags = struct.unpack("16sh14x", answer)[1]
                if flags & _IFF_UP and not flags & _IFF_LOOPBACK:
                    links[name] = bool(flags & _IFF_RUNNING)
    return links


class CannotStart(Exception):
    """The worker cannot be started as the specification says; the message says why."""


def visible_gpus(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the GPUs that a process with these variables may use, as CUDA_VISIBLE_DEVICES does.

    Where the variable is not set, the UUIDs that ``nvidia-smi -L`` lists: CUDA counts GPUs in
    another order than the driver. A GPU that is divided (MIG) is not usable itself, its parts are.
    """
    chosen = environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        names = [name.strip() for name in chosen.split(",")]
        # CUDA ignores all names from the first invalid one on.
        return tuple(itertools.takewhile(lambda name: name and name[0] != "-", names))
    try:
        listed = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, errors="replace",
            timeout=NVIDIA_SMI_TIMEOUT_S, env=dict(environ), check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return parse_gpus(listed.stdout)


def parse_gpus(listed: str) -> tuple[str, ...]:
    """Return the UUIDs of the usable GPUs and parts of GPUs in the output of ``nvidia-smi -L``."""
    gpus: list[list[str]] = []
    for line in listed.splitlines():
        if found := re.match(r"GPU \d+: .*\(UUID: (GPU-[^)\s]+)\)", line):
            gpus.append([found[1]])
        elif (found := re.match(r"\s+MIG .*\(UUID: (MIG-[^)\s]+)\)", line)) and gpus:
            gpus[-1].append(found[1])
    return tuple(name for gpu in gpus for name in (gpu[1:] or gpu))


def gpus_of_slot(gpus: Sequence[str], *, slot: int, slots: int, each: int | None) -> str:
    """Return CUDA_VISIBLE_DEVICES for a worker.

    Args:
      gpus: the GPUs of the host that its workers share.
      slot: the number of the worker among those of the host, from 0.
      slots: how many workers the host runs.
      each: how many GPUs each worker gets; None: an equal part of all.

    Raises:
      CannotStart: there are too few GPUs, or they cannot be divided equally.
    """
    if each == 0:
        return "-1"  # hides all; an empty value does not, for some versions of TensorFlow
    if each is None:
        each, rest = divmod(len(gpus), slots)
        if rest or not each:
            raise CannotStart(
                f"--gpus_per_worker=all: {_counted(len(gpus), 'GPU')} cannot be divided equally "
                f"among {_counted(slots, 'worker')} of this host: give a number, or other slots"
            )
    if slots * each > len(gpus):
        raise CannotStart(
            f"--gpus_per_worker={each}: this host has {_counted(len(gpus), 'GPU')} for "
            f"{_counted(slots, 'worker')}: lower it, or run fewer workers there"
        )
    own = gpus[slot * each : (slot + 1) * each]
    if each > 1 and any(name.startswith("MIG-") for name in own):
        raise CannotStart(
            f"--gpus_per_worker={each}: a process can use one part of a divided GPU (MIG): give "
            "--gpus_per_worker=1, with a worker for each part"
        )
    return ",".join(own)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


class LineBuffer:
    """Turns reads of any size into whole lines; lines beyond MAX_LINE_BYTES are cut."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines, newline included, that `data` completes."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_LINE_BYTES:
            lines.append(self._rest)
            self._rest = b""
        return [line + b"\n" for line in lines]

    def flush(self) -> list[bytes]:
        """Return the unfinished last line, if any."""
        rest, self._rest = self._rest, b""
        return [rest + b"\n"] if rest else []


class Agent:
    """Runs one worker to its end: call `read_spec`, `start` and `run` once, in this order."""

    def __init__(self, stdin: int, stdout: int) -> None:
        self._stdin = stdin
        self._stdout = stdout
        self._commands = LineBuffer()
        self._selector = selectors.DefaultSelector()
        self._outputs: dict[int, LineBuffer] = {}
        self._pid = 0
        self._exit_code: int | None = None
        self._is_stopping = False
        self._kill_at: float | None = None
        self._next_stat = 0.0
        self._next_port_look: float | None = None
        self._silent_s = 0.0
        self._oom_before = oom_kills()
        self._links_before = network_links()
        self._spec: dict[str, Any] = {}

    def read_spec(self) -> bool:
        """Wait for the specification; False if the supervisor closed the pipe before."""
        while data := os.read(self._stdin, 65536):
            lines = self._commands.feed(data)
            if lines:
                self._spec = json.loads(lines[0])
                for line in lines[1:]:
                    self._execute(line)
                return True
        return False

    def start(self, spawn: Callable[[dict[str, Any], int, int], int]) -> None:
        """Start the worker.

        Args:
          spawn: called with the specification and the write ends of the pipes for standard
            output and standard error; returns the worker's pid.
        """
        wakeup, waker = os.pipe()
        for end in (wakeup, waker):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        # A host that is preempted sends SIGTERM to every process: the worker decides.
        signal.signal(signal.SIGTERM, lambda *_: self._signal(signal.SIGTERM))
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        out_read, out_write = os.pipe()
        err_read, err_write = os.pipe()
        try:
            self._choose_gpus()
            self._pid = spawn(self._spec, out_write, err_write)
        except (OSError, CannotStart) as error:
            os.write(err_write, f"cannot start the worker: {error}\n".encode())
            self._exit_code = EXIT_CANNOT_START
        os.close(out_write)
        os.close(err_write)
        for fd in (wakeup, self._stdin, out_read, err_read):
            self._selector.register(fd, selectors.EVENT_READ)
        self._wakeup = wakeup
        self._outputs = {out_read: LineBuffer(), err_read: LineBuffer()}
        if self._spec.get("loopback") and self._pid and sys.platform == "linux":
            self._next_port_look = time.monotonic()
        self._send("started", pid=self._pid)

    def _choose_gpus(self) -> None:
        """Give the worker its own GPUs, if the specification says which part of them."""
        wanted = self._spec.get("gpus")
        if wanted is not None:
            gpus = visible_gpus({**os.environ, **self._spec["env"]})
            self._spec["env"]["CUDA_VISIBLE_DEVICES"] = gpus_of_slot(gpus, **wanted)

    def _restrict_port(self) -> None:
        """Close the worker's port to other machines as soon as it is open, if that is wanted."""
        now = time.monotonic()
        if self._next_port_look is None or now < self._next_port_look:
            return
        try:
            is_closed = close_to_other_machines(self._pid, int(self._spec["port"]))
            # The worker may open it again.
            self._next_port_look = now + (STAT_INTERVAL_S if is_closed else PORT_INTERVAL_S)
        except OSError as error:
            self._next_port_look = None
            text = f"port {self._spec['port']} of this worker is open to other machines: {error}"
            self._write(f"{text} (see 'Security' in docs/shell.md)\n".encode())

    def run(self) -> int:
        """Run until the worker has ended, then kill what it has left; returns its exit code."""
        while self._exit_code is None:
            for key, _ in self._selector.select(self._wait_s()):
                self._ready(key.fd)
            self._reap()
            self._restrict_port()
            self._tick()
        self._drain()
        self._send(
            "exit",
            code=self._exit_code,
            oom=self._exit_code == -signal.SIGKILL and oom_kills() > self._oom_before,
            by_us=self._is_stopping,
        )
        kill_descendants()
        return self._exit_code

    def _wait_s(self) -> float:
        due = min(
            self._next_stat,
            self._kill_at or self._next_stat,
            self._next_port_look or self._next_stat,
        )
        return max(0.0, due - time.monotonic())

    def _ready(self, fd: int) -> None:
        if fd == self._wakeup:
            with contextlib.suppress(BlockingIOError):
                os.read(fd, 4096)
        elif fd == self._stdin:
            self._read_commands()
        else:
            self._forward(fd)

    def _read_commands(self) -> None:
        data = os.read(self._stdin, 65536)
        if not data:  # the supervisor has ended
            self._selector.unregister(self._stdin)
            self._stop(0.0)
        self._silent_s = 0.0
        for line in self._commands.feed(data):
            self._execute(line)

    def _execute(self, line: bytes) -> None:
        command = json.loads(line) if line.strip() else {}
        if "signal" in command:
            self._signal(int(command["signal"]))
        if "stop" in command:
            self._stop(float(command["stop"]))
        if "limit_file_bytes" in command and sys.platform == "linux":
            limit = int(command["limit_file_bytes"])
            resource.prlimit(self._pid, resource.RLIMIT_FSIZE, (limit, limit))

    def _forward(self, fd: int) -> None:
        data = os.read(fd, 65536)
        buffer = self._outputs[fd]
        for line in buffer.feed(data) if data else buffer.flush():
            self._write(line)
        if not data:
            self._selector.unregister(fd)
            del self._outputs[fd]

    def _drain(self) -> None:
        """Forward the last output, for at most DRAIN_S: children may hold the pipes open."""
        until = time.monotonic() + DRAIN_S
        while self._outputs and time.monotonic() < until:
            for key, _ in self._selector.select(0.05):
                self._ready(key.fd)
        for buffer in self._outputs.values():
            for line in buffer.flush():
                self._write(line)

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self._pid:
                    self._exit_code = os.waitstatus_to_exitcode(status)

    def _tick(self) -> None:
        now = time.monotonic()
        if self._kill_at is not None and now >= self._kill_at:
            self._kill_at = None
            self._signal(signal.SIGKILL)
        if now >= self._next_stat:
            self._next_stat = now + STAT_INTERVAL_S
            # Counts ticks instead of time: if this host was suspended, the supervisor may have
            # been suspended too.
            self._silent_s += STAT_INTERVAL_S
            self._send_stat()
        if 0 < float(self._spec.get("heartbeat_timeout_s") or 0) < self._silent_s:
            self._stop(0.0)

    def _send_stat(self) -> None:
        fields = _stat_fields(self._pid)
        if fields is None or fields[0] == "Z":
            return
        port = int(self._spec.get("port") or 0)
        self._send(
            "stat",
            state=fields[0],
            cpu_s=(int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"),
            rss_bytes=int(fields[21]) * os.sysconf("SC_PAGE_SIZE"),
            listening=bool(port) and is_listening(port),
            links_down=self._links_down(),
        )

    def _links_down(self) -> list[str]:
        return [k for k, up in network_links().items() if not up and self._links_before.get(k)]

    def _signal(self, number: int) -> None:
        if self._pid and self._exit_code is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._pid, number)

    def _stop(self, grace_s: float) -> None:
        self._is_stopping = True
        self._signal(signal.SIGTERM if grace_s > 0 else signal.SIGKILL)
        # A stopped process acts on SIGTERM only when it continues.
        self._signal(signal.SIGCONT)
        until = time.monotonic() + grace_s
        self._kill_at = until if self._kill_at is None else min(self._kill_at, until)

    def _send(self, kind: str, **data: Any) -> None:
        event = {"kind": kind, "worker": self._spec["worker"], "phase": "", "time": time.time()}
        self._write((MARK + json.dumps({**event, "data": data}) + "\n").encode())

    def _write(self, line: bytes) -> None:
        # The supervisor may have ended; stdin then closes, and that stops the worker.
        with contextlib.suppress(BrokenPipeError):
            view = memoryview(line)
            while view:
                view = view[os.write(self._stdout, view) :]


def spawn_program(spec: dict[str, Any], out: int, err: int) -> int:
    """Start the program of the specification; returns its pid."""
    process = subprocess.Popen(
        spec["argv"], env={**os.environ, **spec["env"]}, cwd=spec["cwd"],
        stdin=subprocess.DEVNULL, stdout=out, stderr=err, preexec_fn=prepare_worker,
    )  # fmt: skip
    process.returncode = 0  # the agent calls waitpid itself
    return process.pid


def become_agent(
    sockets: Sequence[socket.socket],
    fds: Sequence[int],
    spawn: Callable[[dict[str, Any], int, int], int],
) -> NoReturn:
    """Run an agent and its worker in this fork of a server, then end the process.

    Args:
      sockets: sockets of the server, which are closed.
      fds: the agent's standard input and output.
      spawn: see `Agent.start`.
    """
    status = 1
    try:
        for each in sockets:
            each.close()
        os.setpgid(0, 0)
        stdin, stdout = fds
        os.dup2(stdin, 0)
        os.close(stdin)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        guard(0, stdout)
        forked = Agent(0, stdout)
        if forked.read_spec():
            forked.start(spawn)
            status = 0 if forked.run() == 0 else 1
    finally:
        os._exit(status)


def connect_to_launcher(descriptor: int) -> socket.socket | None:
    """Return the socket to the launcher of this server; None if the launcher has ended already.

    Until `serve` reads the socket, which reports the end of the launcher, the kernel does so. The
    signal comes when the thread that started this process ends: the launcher's main thread.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    launcher = socket.socket(fileno=descriptor)
    die_with_parent()
    with selectors.DefaultSelector() as selector:
        selector.register(launcher, selectors.EVENT_READ)
        return None if selector.select(0) else launcher


def reap() -> None:
    """Wait for all children that have ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def serve(launcher: socket.socket, spawn: Callable[[dict[str, Any], int, int], int]) -> None:
    """Fork an agent per request until the launcher closes the socket.

    Args:
      launcher: a request comes with two file descriptors, the agent's standard input and output;
        the answer is the pid of the agent.
      spawn: see `Agent.start`.
    """
    signal.signal(signal.SIGCHLD, lambda *_: reap())
    launcher.send(READY)
    while True:
        message, fds, _, _ = socket.recv_fds(launcher, 64, 2)
        if not message:
            return
        pid = os.fork()
        if pid == 0:
            become_agent([launcher], fds, spawn)
        for fd in fds:
            os.close(fd)
        launcher.send(str(pid).encode())


def own_argv(python: str, *arguments: str) -> tuple[str, ...]:
    """Return the argv that runs this file without site packages.

    As a module, because Python keeps the compiled code of modules only: compiling this file would
    take longer than everything else until it runs.
    """
    folder, name = os.path.split(os.path.abspath(__file__))
    module = name.partition(".")[0]
    program = (
        f"import sys; sys.path.append({folder!r}); import {module}; sys.exit({module}.main())"
    )
    return (python, "-I", "-S", "-c", program, *arguments)


def hand_over(path: str) -> bool:
    """Let a fork of the host's server be the agent; return False if there is no server.

    Args:
      path: the server's socket (see host_server.py).
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        try:
            server.connect(path)
            socket.send_fds(server, [b"fork"], [0, 1])
            is_forked = bool(server.recv(64))
        except OSError:
            return False
        # What started this process (sshd, srun) takes its end for that of the worker.
        while is_forked and server.recv(64):
            pass
        return is_forked


def main() -> int:
    """Run one worker as standard input specifies; returns 0 for a clean exit, else 1.

    With the path of a server's socket as argument, a fork of the server does so if it can.
    With SERVE and the number of a socket it is a server itself.
    """
    if len(sys.argv) > 2 and sys.argv[1] == SERVE:
        launcher = connect_to_launcher(int(sys.argv[2]))
        if launcher:
            serve(launcher, spawn_program)
        return 0
    if len(sys.argv) > 1 and hand_over(sys.argv[1]):
        return 0
    guard(0, 1)
    agent = Agent(0, os.dup(1))
    os.dup2(2, 1)  # stray prints must not get between the messages
    if not agent.read_spec():
        return 1
    agent.start(spawn_program)
    return 0 if agent.run() == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
