"""What one attempt has shown of each worker: built from its events and its output.

All times are the supervisor's own, taken when it received a message: hosts' clocks may differ.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from tenfold.data.runtime.tensorflow_hooks import EXIT_ERROR
from tenfold.launcher.job.error_texts.graph_errors import lift_sentence
from tenfold.launcher.job.events import (
    AGENT_MESSAGES,
    Error,
    Exit,
    NotFinite,
    Phase,
    Resumed,
    Started,
    Stat,
    Step,
    WorkerEvent,
)

TAIL_LINES: Final = 40
TRACEBACK_LINES: Final = 400

_ABORTED: Final = "Fatal Python error: Aborted"  # as faulthandler prints it
_HEADER: Final = "Traceback (most recent call last):"
# Printed above tracebacks of exceptions that do not change the exit status.
_IGNORED: Final = ("Exception ignored in", "Error in atexit._run_exitfuncs")
_CHAIN: Final = ("During handling of the above exception", "The above exception was the direct")


class TracebackCatcher:
    """Keeps the last Python traceback of a log, with the chain of its causes.

    Leaves out the noise of a process's exit: exceptions that the interpreter ignores, and those
    of callbacks that are refused because the process ends.

    Attributes:
      error: the exception line (``ValueError: no``); empty where there is none.
      time: when the traceback began, in seconds since 1970.
    """

    def __init__(self) -> None:
        self.error = ""
        self.time = 0.0
        self._lines: list[str] = []
        self._in_frames = False
        self._chained = False
        self._previous_line = ""
        self._is_noise = False
        self._before: tuple[list[str], float] = [], 0.0  # the traceback before the present one

    @property
    def text(self) -> str:
        """The traceback as printed, with the further lines of the message."""
        return "\n".join(self._lines).rstrip()

    def feed(self, line: str, now: float) -> None:
        """Take one line of the log."""
        if line.startswith(_HEADER):
            self._begin(now)
        elif line.startswith(_CHAIN):
            self._chained = True
        elif self._in_frames and line and not line[0].isspace():
            self._end(line)
        is_part = bool(self._lines) or line.startswith(_HEADER)
        if is_part and not self._is_noise and len(self._lines) < TRACEBACK_LINES:
            self._lines.append(line)
        self._previous_line = line

    def _begin(self, now: float) -> None:
        if not self._chained:
            self._is_noise = self._previous_line.startswith(_IGNORED)
            self._before = self._lines, self.time
            self._lines, self.time = [], now
        self._in_frames, self._chained = True, False

    def _end(self, line: str) -> None:
        self._in_frames = False
        if self._is_noise or EXIT_ERROR in line:
            self._is_noise = True
            self._lines, self.time = self._before
        else:
            self.error = line


@dataclass
class WorkerRecord:
    """The state of one worker in one attempt. Times are in seconds since 1970, 0 for never.

    Attributes:
      index: the task index.
      phase, phase_since: the current phase and when it began.
      step, total_steps: the last step reported, and the steps of the whole job.
      resumed_step: the step of the checkpoint from which training continued.
      progress: the last step message.
      heard_at: when the worker last reported progress of any kind.
      first_step_at: when it reported its first step.
      longest_s: the longest duration of each phase; for training, between two steps.
      pid: the process id on its host, None before the start.
      state, state_at: the process state (a letter of /proc/PID/stat) and when it was reported.
      rss_bytes, cpu_s: resident memory and CPU time.
      listening, listening_since: whether its port is open, and since when.
      agent_at: when anything arrived from its agent.
      links_down, links_down_at: network devices of its host that had lost their link, and when.
      reports_phases: whether it reports phases.
      done: whether it has reported the phase ``done``.
      not_finite: its report that the loss or a weight is not finite.
      error, error_time: its error message and when it arrived.
      exit_code, exit_time: the exit status, None while it runs, and when it ended.
      oom: the kernel's out-of-memory killer struck on its host.
      stopped_by_us: it ended because the supervisor stopped it.
      lost: its agent ended without reporting an exit.
      note: the watchdog's reason to blame this worker.
      echo: where this worker waited for the one that the watchdog blames.
      stack: the Python stack that it printed when it was aborted.
      traceback: the last traceback of its output.
      tail: the last lines of its output, before that stack.
    """

    index: int
    phase: str = ""
    phase_since: float = 0.0
    step: int | None = None
    total_steps: int | None = None
    resumed_step: int = 0
    progress: Step | None = None
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
    reports_phases: bool = False
    done: bool = False
    not_finite: NotFinite | None = None
    error: Error | None = None
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
        """Whether the worker is gone."""
        return self.exit_code is not None or self.lost

    def take_line(self, line: str, now: float) -> None:
        """Take a line of ordinary output."""
        self.agent_at = now
        self.traceback.feed(line, now)
        # The lines before an abort say why; the stack is longer than the tail.
        is_stack = line.startswith(_ABORTED) or bool(self.stack)
        (self.stack if is_stack else self.tail).append(line)

    def take_event(self, event: WorkerEvent, now: float) -> None:
        """Take an event of the worker or its agent; a message of an unknown kind shows life."""
        self.agent_at = now
        self._apply(event, now)
        if not isinstance(event.message, AGENT_MESSAGES):
            self.heard_at = now

    def _apply(self, event: WorkerEvent, now: float) -> None:
        match event.message:
            case Started(pid=pid):
                self.pid, self.phase_since = pid, now
            case Stat() as stat:
                self._apply_stat(stat, now)
            case Exit(code=code, oom=oom, by_us=by_us):
                self.exit_code, self.exit_time = code, now
                self.oom, self.stopped_by_us = oom, by_us
            case Phase():
                self._enter_phase(event.phase, now)
            case Step() as step:
                self._apply_step(step, now)
            case Resumed(step=step_number):
                self.resumed_step = step_number
            case NotFinite() as not_finite:
                self.not_finite = not_finite
            case Error() as error if self.error is None:
                self.error, self.error_time = error, now

    def mark_lost(self, now: float) -> None:
        """Mark the worker as lost, because its agent has gone, unless it has ended before."""
        if self.exit_code is None:
            self.lost, self.exit_time = True, now

    def shift_clock(self, seconds: float) -> None:
        """Shift all timestamps by `seconds` during which the supervisor itself was suspended."""
        for name in ("phase_since", "listening_since", "heard_at", "state_at", "agent_at"):
            setattr(self, name, getattr(self, name) + seconds)

    def _apply_stat(self, stat: Stat, now: float) -> None:
        self.state, self.state_at = stat.state, now
        self.rss_bytes, self.cpu_s = stat.rss_bytes, stat.cpu_s
        if stat.listening and not self.listening:
            self.listening, self.listening_since = True, now
        if stat.links_down:
            self.links_down, self.links_down_at = stat.links_down, now

    def _enter_phase(self, phase: str, now: float) -> None:
        if self.phase not in ("", "training"):
            self._note_duration(self.phase, now - self.phase_since)
        self.phase, self.phase_since = phase, now
        self.reports_phases, self.done = True, phase == "done"

    def _apply_step(self, step: Step, now: float) -> None:
        if self.first_step_at:
            self._note_duration("training", now - self.heard_at)
        if self.phase in ("", "first_step"):
            self.phase, self.phase_since = "training", now
        self.first_step_at = self.first_step_at or now
        self.step, self.progress = step.step, step
        if step.total_steps is not None:
            self.total_steps = step.total_steps

    def _note_duration(self, phase: str, seconds: float) -> None:
        self.longest_s[phase] = max(seconds, self.longest_s.get(phase, 0.0))


def failure_text(record: WorkerRecord) -> tuple[str, str]:
    """Return a worker's error line and traceback: of its error event, else of its log."""
    if record.error is not None:
        error = record.error
        text = f"{error.type}: {error.message}".rstrip(": ")
        return lift_sentence(text, error.traceback), error.traceback
    caught = record.traceback
    return lift_sentence(caught.error, caught.text), caught.text
