"""Goodput: the share of a launch's wall time in steps that were kept, and what the rest was. Pure.

Worker 0 stands for the job: training is synchronous, so all workers wait for one that does
something else. Every millisecond of the launch belongs to one kind of KINDS.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

# The kinds of time, and their meanings for a person.
KINDS: Final[Mapping[str, str]] = {
    "steps": "steps that were kept",
    "input": "waiting for input",
    "exchange": "exchanging gradients",
    "evaluation": "evaluation",
    "checkpoint": "saving checkpoints and the model",
    "start": "start of the workers",
    "build": "building and compiling",
    "restart": "restarts",
    "lost": "work that was lost",
    "end": "end of the job",
}
# Kinds whose work is lost if the job resumes at an earlier step.
_LOSABLE: Final = ("steps", "evaluation", "checkpoint")

# A worker is slow if it takes so many times as long as the others before the exchange, and the
# others wait for it for at least this share of a step.
SLOW_RATIO: Final = 1.25
SLOW_SHARE: Final = 0.1
MIN_MEASURED_S: Final = 10.0  # a shorter time says little of a worker


@dataclass(frozen=True)
class TimePart:
    """A part of the launch of one kind; all times are whole milliseconds.

    Attributes:
      kind: one of KINDS.
      ms: its length.
      first_step: the steps done at its begin.
      last_step: the steps done at its end; equal to `first_step` except for kind ``steps``.
      waited_ms: of kind ``steps``, how much of it was waiting for input.
      exchanged_ms: of kind ``steps``, how much of it was exchanging gradients.
    """

    kind: str
    ms: int
    first_step: int = 0
    last_step: int = 0
    waited_ms: int = 0
    exchanged_ms: int = 0

    def __post_init__(self) -> None:
        assert self.kind in KINDS, self.kind
        assert min(self.ms, self.waited_ms, self.exchanged_ms) >= 0, self
        assert self.waited_ms + self.exchanged_ms <= self.ms, self

    def parts(self) -> dict[str, int]:
        """Return the milliseconds of each kind; they sum to `ms`."""
        if self.kind != "steps":
            return {self.kind: self.ms}
        own = self.ms - self.waited_ms - self.exchanged_ms
        return {"steps": own, "input": self.waited_ms, "exchange": self.exchanged_ms}


def lose_after(parts: Sequence[TimePart], step: int) -> list[TimePart]:
    """Return the parts of a job that resumes after `step`: later work is lost."""
    kept: list[TimePart] = []
    for part in parts:
        if part.kind not in _LOSABLE or part.last_step <= step:
            kept.append(part)
        elif part.first_step >= step:
            kept.append(TimePart("lost", part.ms, part.first_step, part.last_step))
        else:
            kept += _split(part, step)
    return kept


def _split(part: TimePart, step: int) -> tuple[TimePart, TimePart]:
    """Return the kept and the lost part of a part whose steps contain `step`."""
    done, total = step - part.first_step, part.last_step - part.first_step
    ms = part.ms * done // total
    waited_ms = part.waited_ms * done // total
    exchanged_ms = min(part.exchanged_ms * done // total, ms - waited_ms)
    kept = replace(part, ms=ms, last_step=step, waited_ms=waited_ms, exchanged_ms=exchanged_ms)
    return kept, TimePart("lost", part.ms - ms, step, part.last_step)


@dataclass(frozen=True)
class Goodput:
    """What the wall time of a launch was spent on.

    Attributes:
      seconds: the wall time.
      parts: the seconds of each kind of KINDS, in that order; in milliseconds they sum exactly to
        `seconds`.
      share: the share of the wall time in steps that were kept, 0 to 1.
      before_exchange_s: per worker, the seconds of a step before its gradients are exchanged;
        empty where that is not measured.
      slow_worker: the worker that takes clearly longer than the others, None without one.
    """

    seconds: float
    parts: Mapping[str, float]
    share: float
    before_exchange_s: tuple[float, ...] = ()
    slow_worker: int | None = None

    def sentence(self) -> str:
        """Return the share and the rest in one line, largest parts first."""
        rest = sorted(
            ((name, value) for name, value in self.parts.items() if name != "steps"),
            key=lambda part: -part[1],
        )
        shown = [
            f"{name} {100 * value / self.seconds:.0f} %"
            for name, value in rest
            if self.seconds and value / self.seconds >= 0.005
        ]
        text = f"{100 * self.share:.0f} % of the time in {KINDS['steps']}"
        return text + (f"; the rest: {', '.join(shown)}" if shown else "")

    def slow_sentence(self) -> str:
        """Return a sentence on the slow worker, empty without one."""
        if self.slow_worker is None:
            return ""
        own_s, others_s = _compared(self.before_exchange_s, self.slow_worker)
        return (
            f"worker {self.slow_worker} is slow: {step_time_text(own_s)} of each step before the "
            f"exchange of gradients, the others {step_time_text(others_s)} and then wait for it: "
            "look at its host and its input"
        )


def step_time_text(seconds: float) -> str:
    """Return the time of a step as text, in milliseconds."""
    ms = 1000 * seconds
    return f"{ms:,.0f} ms" if ms >= 10 else f"{ms:.1f} ms"


def _compared(seconds: Sequence[float], worker: int) -> tuple[float, float]:
    """Return the seconds of a worker, and the median of the other workers."""
    others = [value for index, value in enumerate(seconds) if index != worker]
    from statistics import median  # with its own imports the slowest one of a launch

    return seconds[worker], median(others)


@dataclass
class Pace:
    """The steps of one worker since it started, without the first, which compiles.

    Attributes:
      steps: their number.
      seconds: how long they took.
      exchanged_s: how much of that was exchanging gradients.
      is_measured: whether the worker reports `exchanged_s`.
    """

    steps: int = 0
    seconds: float = 0.0
    exchanged_s: float = 0.0
    is_measured: bool = False

    @property
    def before_exchange_s(self) -> float:
        """The mean seconds of a step before the exchange."""
        return max(0.0, self.seconds - self.exchanged_s) / max(1, self.steps)


def sum_up(parts: Sequence[TimePart], paces: Sequence[Pace]) -> Goodput:
    """Return the goodput of a launch.

    Args:
      parts: all of its time.
      paces: the pace of each worker.
    """
    totals = dict.fromkeys(KINDS, 0)
    for part in parts:
        for kind, ms in part.parts().items():
            totals[kind] += ms
    wall_ms = sum(totals.values())
    measured = bool(paces) and all(pace.is_measured and pace.steps for pace in paces)
    before_s = tuple(round(pace.before_exchange_s, 6) for pace in paces) if measured else ()
    return Goodput(
        seconds=wall_ms / 1000,
        parts={kind: ms / 1000 for kind, ms in totals.items()},
        share=round(totals["steps"] / wall_ms, 4) if wall_ms else 0.0,
        before_exchange_s=before_s,
        slow_worker=_slow_worker(before_s, paces),
    )


def _slow_worker(before_s: Sequence[float], paces: Sequence[Pace]) -> int | None:
    if len(before_s) < 2 or min(pace.seconds for pace in paces) < MIN_MEASURED_S:
        return None
    slowest = max(range(len(before_s)), key=lambda worker: before_s[worker])
    own_s, others_s = _compared(before_s, slowest)
    step_s = paces[slowest].seconds / paces[slowest].steps
    is_slow = own_s > SLOW_RATIO * others_s and own_s - others_s > SLOW_SHARE * step_s
    return slowest if is_slow else None
