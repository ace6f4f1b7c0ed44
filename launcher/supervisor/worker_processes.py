"""One attempt's processes: an agent per worker, their pipes, and the messages from them."""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any, Final, Protocol

from tenfold.launcher.backends.base import Host
from tenfold.launcher.job.events import WorkerEvent, split_output
from tenfold.launcher.job.job_spec import ClusterSpec, HostCommand, JobSpec, worker_env
from tenfold.launcher.worker import agent
from tenfold.launcher.worker.environment import no_proxy_for
from tenfold.launcher.worker.python_argv import remote_module_argv

HEARTBEAT_S: Final = 2.0
# A connection to a remote host may break without an error at either end.
HEARTBEAT_TIMEOUT_S: Final = 10.0
AGENT_LINGER_S: Final = 6.0


@dataclass(frozen=True)
class WorkerStart:
    """One worker to start: `agent` runs on this machine and reads `spec` (see agent.py)."""

    index: int
    agent: HostCommand
    spec: Mapping[str, Any]


@dataclass(frozen=True)
class WorkerMessage:
    """From one worker: an event, or a line of output, or (both None) the end of its agent."""

    worker: int
    event: WorkerEvent | None = None
    line: str | None = None


class AgentProcess(Protocol):
    """The process of an agent; `subprocess.Popen` implements it."""

    stdin: IO[bytes] | None
    stdout: IO[bytes] | None

    def poll(self) -> int | None:
        """Return None while it runs."""
        ...

    def kill(self) -> None:
        """Kill it."""
        ...

    def wait(self) -> int:
        """Wait until it has ended."""
        ...


def own_group() -> dict[str, Any]:
    """Return Popen's arguments for a process group of its own.

    The terminal's Ctrl-C then reaches the supervisor alone, which stops the agents. Before Python
    3.11 a new session is the only way. It costs speed: the kernel's autogroups (man 7 sched)
    divide the cores among sessions, and workers of several sessions wait longer for each other.
    """
    return {"process_group": 0} if sys.version_info >= (3, 11) else {"start_new_session": True}


def start_agent(command: HostCommand) -> AgentProcess:
    """Start an agent as a subprocess."""
    return subprocess.Popen(
        command.argv,
        env={**os.environ, **command.env},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        **own_group(),
    )


@dataclass
class _Member:
    index: int
    process: AgentProcess
    lines: agent.LineBuffer = field(default_factory=agent.LineBuffer)
    gone: bool = False


def agent_argv(host: Host, server: str = "") -> tuple[str, ...]:
    """Return the argv of the agent on `host`.

    On this machine its file runs without site packages, because these take most of the start.

    Args:
      host: the host.
      server: the socket of a fork server on the host (see host_server.py); "" for none.
    """
    arguments = (server,) if server else ()
    if host.remote:
        return remote_module_argv(agent.__name__, arguments, python=host.python)
    return agent.own_argv(host.python, *arguments)


def slot_of(hosts: Sequence[Host], index: int) -> tuple[int, int]:
    """Return a worker's number among the workers of its host, and how many these are."""
    names = [host.name for host in hosts]
    return names[:index].count(names[index]), names.count(names[index])


def worker_start(
    spec: JobSpec,
    cluster: ClusterSpec,
    index: int,
    host: Host,
    *,
    agent_command: HostCommand,
    passed_env: Mapping[str, str],
    slot: tuple[int, int] = (0, 1),
    argv: Sequence[str] = (),
    restart: int = 0,
    more_env: Mapping[str, str] | None = None,
) -> WorkerStart:
    """Return the start of one worker of a job.

    Args:
      spec: the job.
      cluster: the addresses of all workers.
      index: the task index of the worker.
      host: its host.
      agent_command: how its agent is started.
      passed_env: variables of all workers, which may be secrets.
      slot: see `slot_of`.
      argv: the program, where it is not that of the job.
      restart: the number of the start, from 0.
      more_env: further variables of this worker.
    """
    agent_spec: dict[str, Any] = {
        "argv": list(argv or spec.argv_on(host.python)),
        "env": {
            **passed_env,
            **worker_env(spec, cluster, index, restart=restart),
            **no_proxy_for(os.environ, cluster.workers),
            **(more_env or {}),
        },
        "cwd": spec.cwd,
        "worker": index,
        "port": int(cluster.workers[index].rpartition(":")[2]),
        "heartbeat_timeout_s": HEARTBEAT_TIMEOUT_S if host.remote else 0,
        "loopback": cluster.is_on_loopback,
        "gpus": spec.gpus_of(*slot),
    }
    return WorkerStart(index, agent_command, agent_spec)


class WorkerProcesses:
    """The running workers of one attempt, used by one thread. Always `close` it."""

    def __init__(
        self,
        starts: Sequence[WorkerStart],
        *,
        spawn: Callable[[], AgentProcess | None] = lambda: None,
    ) -> None:
        """Start all workers.

        Args:
          starts: the workers.
          spawn: forks an agent on this machine; None as its result means to start a subprocess.
        """
        self._spawn = spawn
        self._selector = selectors.DefaultSelector()
        self._members: dict[int, _Member] = {}
        self._next_heartbeat = 0.0
        try:
            for start in starts:
                self._start(start)
        except BaseException:
            self.close()
            raise

    def _start(self, start: WorkerStart) -> None:
        process = self._spawn() or start_agent(start.agent)
        assert process.stdout is not None
        member = _Member(start.index, process)
        self._members[start.index] = member
        os.set_blocking(process.stdout.fileno(), False)
        self._selector.register(process.stdout, selectors.EVENT_READ, member)
        self._send(member, dict(start.spec))

    @property
    def running(self) -> tuple[int, ...]:
        """Task indexes of the workers whose agents have not ended."""
        return tuple(member.index for member in self._members.values() if not member.gone)

    def poll(self, timeout_s: float) -> Iterator[WorkerMessage]:
        """Yield the messages that arrive within `timeout_s`; returns at the first ones."""
        now = time.monotonic()
        if now >= self._next_heartbeat:
            self._next_heartbeat = now + HEARTBEAT_S
            self._write_all(b"\n")
        for key, _ in self._selector.select(timeout_s):
            yield from self._read(key.data)

    def _read(self, member: _Member) -> Iterator[WorkerMessage]:
        stream = member.process.stdout
        assert stream is not None
        try:
            data = os.read(stream.fileno(), 1 << 16)
        except BlockingIOError:
            return
        for line in member.lines.feed(data) if data else member.lines.flush():
            yield from _messages_of(member.index, line)
        if not data:
            self._selector.unregister(stream)
            member.gone = True
            yield WorkerMessage(member.index)

    def signal(self, worker: int, number: int) -> None:
        """Send a signal to a worker's process group."""
        self._command(worker, {"signal": number})

    def limit_file_bytes(self, worker: int, num_bytes: int) -> None:
        """Limit the size of every file that a worker writes."""
        self._command(worker, {"limit_file_bytes": num_bytes})

    def stop(self, grace_s: float) -> None:
        """Send SIGTERM to all workers, and SIGKILL after `grace_s` to those still running."""
        for worker in self.running:
            self._command(worker, {"stop": grace_s})

    def _command(self, worker: int, command: Mapping[str, Any]) -> None:
        self._send(self._members[worker], command)

    def _send(self, member: _Member, message: Mapping[str, Any]) -> None:
        self._write(member, json.dumps(message).encode() + b"\n")

    def _write_all(self, line: bytes) -> None:
        for member in self._members.values():
            if not member.gone:
                self._write(member, line)

    def _write(self, member: _Member, data: bytes) -> None:
        assert member.process.stdin is not None
        with contextlib.suppress(
            BrokenPipeError
        ):  # it has ended; `_read` notices that at its output
            member.process.stdin.write(data)

    def close(self) -> None:
        """End all agents: each kills its processes when its standard input closes.

        Agents that do not end within AGENT_LINGER_S are killed.
        """
        for member in self._members.values():
            with contextlib.suppress(BrokenPipeError):
                member.process.stdin.close()  # type: ignore[union-attr]
        until = time.monotonic() + AGENT_LINGER_S
        for member in self._members.values():
            self._join(member, until)
        self._selector.close()
        kill_orphans()

    def _join(self, member: _Member, until: float) -> None:
        stream = member.process.stdout
        assert stream is not None
        os.set_blocking(stream.fileno(), False)
        while member.process.poll() is None and time.monotonic() < until:
            with contextlib.suppress(BlockingIOError):
                os.read(stream.fileno(), 1 << 16)  # an agent blocks while its pipe is full
            time.sleep(0.005)
        if member.process.poll() is None:
            member.process.kill()
            member.process.wait()
        stream.close()


def _messages_of(worker: int, raw: bytes) -> Iterator[WorkerMessage]:
    text, event = split_output(raw.decode("utf-8", errors="replace").rstrip("\r\n"))
    if text is not None:
        yield WorkerMessage(worker, line=text)
    if event is not None:
        yield WorkerMessage(worker, event=event)


def kill_orphans() -> None:
    """Kill processes of killed agents, which this process, a subreaper, has inherited."""
    me = os.getpid()
    for pid in agent.descendants(me) if agent.has_children() else ():
        if _is_inherited(pid, me):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def _is_inherited(pid: int, me: int) -> bool:
    """Whether `pid` is in another process group than ours, as agents and workers always are."""
    try:
        return os.getpgid(pid) != os.getpgid(me)
    except ProcessLookupError:
        return False
