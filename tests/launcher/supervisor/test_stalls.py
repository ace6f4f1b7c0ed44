"""A machine that sleeps or is paused for a while: nobody is blamed for that."""

import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tenfold.launcher.job.events import Message, Started, Stat, Step, WorkerEvent
from tenfold.launcher.supervisor import attempt
from tenfold.launcher.supervisor.attempt import Attempt
from tenfold.launcher.supervisor.watchdog import WatchPolicy
from tenfold.launcher.supervisor.worker_processes import WorkerMessage
from tenfold.launcher.worker import agent
from tenfold.launcher.worker.stop_signals import StopRequest

pytestmark = pytest.mark.timeout(60)

TURNS = 300  # of a tenth of a second each


class WorkerProcesses:
    """Two workers, half a second apart, that report a step and are looked at every second."""

    def __init__(self, clock: Any, *, sleep_at: int) -> None:
        self.clock, self.sleep_at = clock, sleep_at
        self.turn = 0
        self.signals: list[int] = []

    @property
    def running(self) -> tuple[int, ...]:
        return (0, 1) if self.turn < TURNS else ()

    def poll(self, timeout_s: float) -> Iterator[WorkerMessage]:
        self.turn += 1
        self.clock.now += 3600.0 if self.turn == self.sleep_at else 0.1
        worker, rest = divmod(self.turn % 10, 5)
        if rest == 0:
            start: list[Message] = [Started(1)] if self.turn <= 10 else []
            for message in [*start, Stat("S"), Step(self.turn)]:
                yield WorkerMessage(worker, event=WorkerEvent(worker, "", message))

    def signal(self, worker: int, number: int) -> None:
        self.signals.append(number)

    def stop(self, grace_s: float) -> None:
        self.turn = TURNS


# In the middle of a silence; when the one worker, or the other, is the first to speak again.
@pytest.mark.parametrize("sleep_at", [103, 105, 110])
def test_workers_are_not_taken_for_hung_after_an_hour_of_sleep(
    monkeypatch: pytest.MonkeyPatch, clock: Any, sleep_at: int
) -> None:
    monkeypatch.setattr(attempt, "time", clock)
    processes = WorkerProcesses(clock, sleep_at=sleep_at)
    ignore = SimpleNamespace(**dict.fromkeys(("note", "tick", "event"), lambda *_: None))
    watched: Any = Attempt(
        processes=processes,  # type: ignore[arg-type]
        records=(attempt.WorkerRecord(0), attempt.WorkerRecord(1)),
        view=ignore,
        logs=None,  # type: ignore[arg-type]
        stop=StopRequest(),
        watch=WatchPolicy(),
        grace_s=1.0,
        failure_grace_s=0.0,
    )
    watched.run()
    assert (processes.signals, watched.verdict) == ([], None)


@pytest.fixture
def waiting_agent(monkeypatch: pytest.MonkeyPatch, clock: Any) -> Iterator[Any]:
    """An agent that waits for a word of the supervisor for 10 seconds of `clock`."""
    monkeypatch.setattr(agent, "time", clock)
    with open(os.devnull, "r+b") as nothing:
        waiting: Any = agent.Agent(nothing.fileno(), nothing.fileno())
        waiting._spec = {"worker": 0, "heartbeat_timeout_s": 10}
        yield waiting


def test_an_agent_waits_for_the_supervisor_as_long_as_it_is_awake(
    waiting_agent: Any, clock: Any
) -> None:
    waiting_agent._tick()
    clock.now += 3600.0
    waiting_agent._tick()
    assert not waiting_agent._told_to_stop
    for _ in range(10):
        clock.now += 1.0
        waiting_agent._tick()
    assert waiting_agent._told_to_stop
