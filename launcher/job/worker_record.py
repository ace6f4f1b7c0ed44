"""What is known of each worker of one attempt: built up from its events and its output.

All times are the supervisor's own, of when it heard of a thing: hosts' clocks may differ.
"""

import contextlib
import re
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final

from tenfold.launcher.job.events import WorkerEvent

TAIL_LINES: Final = 40
TRACEBACK_LINES: Final = 400

_ABORTED: Final = "Fatal Python error: Aborted"  # as faulthandler prints it
_HEADER: Final = "Traceback (most recent call last):"
_CHAIN: Final = ("During handling of the above exception", "The above exception was the direct")


class TracebackCatcher:
    """Keeps the last Python traceback of a log, its chain of causes included.

    `error` is its exception line (``ValueError: no``), `text` the whole with what the message
    goes on with, `time` when it began.
    """

    def __init__(self) -> None:
        self.error = ""
        self.time = 0.0
        self._lines: list[str] = []
        self._in_frames = False
        self._chained = False

    @property
    def text(self) -> str:
        """The traceback as it was printed."""
        return "\n".join(self._lines).rstrip()

    def feed(self, line: str, now: float) -> None:
        """Takes one line of the log."""
        if line.startswith(_HEADER):
            self._begin(now)
        elif line.startswith(_CHAIN):
            self._chained = True
        elif self._in_frames and line and not line[0].isspace():
            self.error, self._in_frames = line, False
        if (self._lines and len(self._lines) < TRACEBACK_LINES) or line.startswith(_HEADER):
            self._lines.append(line)

    def _begin(self, now: float) -> None:
        if not self._chained:
            self._lines, self.time = [], now
        self._in_frames, self._chained = True, False


@dataclass
class WorkerRecord:
    """All that one attempt has shown of one worker. Times are in seconds since 1970.

    `exit_code` is None while it runs; `lost` says that its agent went away without a word;
    `stopped_by_us` that the exit is our doing; `note` is what the watchdog has against it,
    `echo` what it knows of a worker that waited for the culprit.
    `longest_s` holds per phase the longest that it took, for training from step to step;
    `stack` is the Python stack that it printed when it was aborted. `agent_at` is when its
    agent was last heard, `state_at` when it last told the state, `listening_since` when it first
    saw the port open, `links_down` the network devices of its host that were last seen without a
    cable, at `links_down_at`.
    """

    index: int
    phase: str = ""
    phase_since: float = 0.0
    step: int | None = None
    total_steps: int | None = None
    resumed_step: int = 0
    progress: dict[str, Any] = field(default_factory=dict)
    heard_at: float = 0.0
    first_step_at: float = 0.0
    longest_s: dict[str, float] = field(default_factory=dict)
    pid: int | None = None
    state: str = ""
    state_at: float = 0.0
    rss_bytes: int = 0
    cpu_s: float = 0.0
    listening: bool = False
    listening_since: float = 0.0
    agent_at: float = 0.0
    links_down: tuple[str, ...] = ()
    links_down_at: float = 0.0
    tells_phases: bool = False
    done: bool = False
    error: WorkerEvent | None = None
    error_time: float = 0.0
    exit_code: int | None = None
    exit_time: float = 0.0
    oom: bool = False
    stopped_by_us: bool = False
    lost: bool = False
    note: str = ""
    echo: str = ""
    stack: list[str] = field(default_factory=list)
    traceback: TracebackCatcher = field(default_factory=TracebackCatcher)
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=TAIL_LINES))

    @property
    def ended(self) -> bool:
        """Whether it is gone."""
        return self.exit_code is not None or self.lost

    def take_line(self, line: str, now: float) -> None:
        """Takes a line of ordinary output."""
        self.agent_at = now
        self.tail.append(line)
        self.traceback.feed(line, now)
        if line.startswith(_ABORTED) or self.stack:
            self.stack.append(line)

    def take_event(self, event: WorkerEvent, now: float) -> None:
        """Takes an event of the worker's or of its agent."""
        self.agent_at = now
        handler = getattr(self, f"_on_{event.kind}", None)
        # The worker's output is its own: a damaged event is passed over.
        with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):
            if handler is not None:
                handler(event, now)
        if event.kind not in ("stat", "exit"):
            self.heard_at = now

    def mark_lost(self, now: float) -> None:
        """Its agent has gone; without an exit event the worker is lost."""
        if self.exit_code is None:
            self.lost, self.exit_time = True, now

    def shift_clock(self, seconds: float) -> None:
        """Takes `seconds` in which nobody listened out of its silence."""
        for name in ("phase_since", "listening_since", "heard_at", "state_at", "agent_at"):
            setattr(self, name, getattr(self, name) + seconds)

    def _on_started(self, event: WorkerEvent, now: float) -> None:
        self.pid = event.data.get("pid")
        self.phase_since = now

    def _on_stat(self, event: WorkerEvent, now: float) -> None:
        self.state, self.state_at = str(event.data.get("state", "")), now
        self.rss_bytes = int(event.data.get("rss_bytes", 0))
        self.cpu_s = float(event.data.get("cpu_s", 0.0))
        if event.data.get("listening") and not self.listening:
            self.listening, self.listening_since = True, now
        if links := tuple(event.data.get("links_down", ())):
            self.links_down, self.links_down_at = links, now

    def _on_exit(self, event: WorkerEvent, now: float) -> None:
        self.exit_code = int(event.data["code"])
        self.exit_time = now
        self.oom = bool(event.data.get("oom"))
        self.stopped_by_us = bool(event.data.get("by_us"))

    def _on_phase(self, event: WorkerEvent, now: float) -> None:
        if self.phase not in ("", "training"):
            self._learn(self.phase, now - self.phase_since)
        self.phase, self.phase_since = event.phase, now
        self.tells_phases, self.done = True, event.phase == "done"

    def _on_step(self, event: WorkerEvent, now: float) -> None:
        if self.first_step_at:
            self._learn("training", now - self.heard_at)
        if self.phase in ("", "first_step"):
            self.phase, self.phase_since = "training", now
        self.first_step_at = self.first_step_at or now
        self.step = int(event.data["step"])
        self.total_steps = event.data.get("total_steps", self.total_steps)
        self.progress = event.data

    def _on_resumed(self, event: WorkerEvent, _: float) -> None:
        self.resumed_step = int(event.data["step"])

    def _on_error(self, event: WorkerEvent, now: float) -> None:
        if self.error is None:
            self.error, self.error_time = event, now

    def _learn(self, phase: str, seconds: float) -> None:
        self.longest_s[phase] = max(seconds, self.longest_s.get(phase, 0.0))


def failure_text(record: WorkerRecord) -> tuple[str, str]:
    """Returns a worker's error line and traceback: of its error event, else of its log."""
    if record.error is not None:
        data = record.error.data
        name, message = data.get("type", "Error"), str(data.get("message", ""))
        return f"{name}: {message}".rstrip(": "), str(data.get("traceback", ""))
    return record.traceback.error, record.traceback.text


PEER_MESSAGES: Final = re.compile(
    r"UnavailableError|DeadlineExceededError|Connection reset by peer|Connection refused|"
    r"Socket closed|failed to connect to all addresses|coordination.?service|"
    r"Collective ops is aborted|heartbeat timeout|tasks are unhealthy|unhealthy tasks|"
    r"Barrier failed|Peer .*(unreachable|restarted)",
    re.IGNORECASE,
)
