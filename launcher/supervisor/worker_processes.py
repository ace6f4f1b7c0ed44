"""One attempt's processes: an agent per worker, their pipes, and what comes out of them."""

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
from pathlib import Path
from typing import IO, Any, Final, Protocol

from tenfold.launcher.backends.base import Host
from tenfold.launcher.job.events import WorkerEvent, split_output
from tenfold.launcher.job.job_spec import HostCommand
from tenfold.launcher.worker import agent
from tenfold.launcher.worker.python_argv import remote_module_argv

HEARTBEAT_S: Final = 2.0
AGENT_LINGER_S: Final = 6.0


@dataclass(frozen=True)
class WorkerStart:
    """One worker to start: `agent` is run here, `spec` is what it reads (see agent.py)."""

    index: int
    agent: HostCommand
    spec: Mapping[str, Any]


@dataclass(frozen=True)
class WorkerMessage:
    """One thing from a worker: an event, or a line of its output, or (neither) its end."""

    worker: int
    event: WorkerEvent | None = None
    line: str | None = None


class AgentProcess(Protocol):
    """What the processes needs of an agent's process; `subprocess.Popen` has it."""

    stdin: IO[bytes] | None
    stdout: IO[bytes] | None

    def poll(self) -> int | None:
        """Returns None while it runs."""
        ...

    def kill(self) -> None:
        """Kills it."""
        ...

    def wait(self) -> int:
        """Waits until it is gone."""
        ...


def own_group() -> dict[str, Any]:
    """Returns Popen's arguments for a process group of its own: the terminal's Ctrl-C is the
    supervisor's alone, and it tells the agents.

    Not a session where it can be helped: the kernel's autogroups (man 7 sched) share the cores
    out among sessions, and workers of several sessions wait for each other longer.
    """
    return {"process_group": 0} if sys.version_info >= (3, 11) else {"start_new_session": True}


def start_agent(command: HostCommand) -> AgentProcess:
    """Starts an agent as a process of its own."""
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


def agent_argv(host: Host) -> tuple[str, ...]:
    """Returns the argv of the agent on `host`.

    Where this checkout's files are, without site packages, so that it starts in 0.1 s.
    """
    if host.remote:
        return remote_module_argv(agent.__name__, python=host.python)
    return (host.python, "-I", "-S", str(Path(agent.__file__).resolve()))


class WorkerProcesses:
    """The running workers of one attempt. Always `close` it.

    `spawn` starts agents of this host in its own way, or returns None where it cannot.
    """

    def __init__(
        self,
        starts: Sequence[WorkerStart],
        *,
        spawn: Callable[[], AgentProcess | None] = lambda: None,
    ) -> None:
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
        """Workers whose agents are there, by index."""
        return tuple(member.index for member in self._members.values() if not member.gone)

    def poll(self, timeout_s: float) -> Iterator[WorkerMessage]:
        """Yields what has come in within `timeout_s`, as soon as anything has."""
        now = time.monotonic()
        if now >= self._next_heartbeat:
            self._next_heartbeat = now + HEARTBEAT_S
            self._tell_all(b"\n")
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
        """Sends a signal to a worker's process group."""
        self._tell(worker, {"signal": number})

    def limit_file_bytes(self, worker: int, num_bytes: int) -> None:
        """Lets no file of a worker grow beyond `num_bytes`."""
        self._tell(worker, {"limit_file_bytes": num_bytes})

    def stop(self, grace_s: float) -> None:
        """Sends SIGTERM to all workers, and SIGKILL after `grace_s` to those still there."""
        for worker in self.running:
            self._tell(worker, {"stop": grace_s})

    def _tell(self, worker: int, command: Mapping[str, Any]) -> None:
        self._send(self._members[worker], command)

    def _send(self, member: _Member, message: Mapping[str, Any]) -> None:
        self._write(member, json.dumps(message).encode() + b"\n")

    def _tell_all(self, line: bytes) -> None:
        for member in self._members.values():
            if not member.gone:
                self._write(member, line)

    def _write(self, member: _Member, data: bytes) -> None:
        assert member.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it is gone; its end is read from its output
            member.process.stdin.write(data)

    def close(self) -> None:
        """Closes every agent's standard input, so that it kills what it has started, waits
        for the agents, and kills those that do not go.
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
                os.read(stream.fileno(), 1 << 16)  # an agent that cannot write cannot end
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
    """Kills what a killed agent left behind: as a subreaper this process has inherited it."""
    me = os.getpid()
    for pid in agent.descendants(me):
        if _is_inherited(pid, me):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def _is_inherited(pid: int, me: int) -> bool:
    """Whether `pid` runs in a process group that is not ours: agents and workers always do."""
    try:
        return os.getpgid(pid) != os.getpgid(me)
    except ProcessLookupError:
        return False
