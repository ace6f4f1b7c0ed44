"""A machine that is suspended for a while: no worker is blamed for that."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tenfold.launcher.job.events import Message, Started, Stat, Step, WorkerEvent
from tenfold.launcher.supervisor import attempt
from tenfold.launcher.supervisor.attempt import Attempt
from tenfold.launcher.supervisor.watchdog import WatchPolicy
from tenfold.launcher.supervisor.worker_processes import WorkerMessage
from tenfold.launcher.worker.stop_signals import StopRequest

pytestmark = pytest.mark.timeout(150)

ROUNDS = 300  # of 0.1 s each


class WorkerProcesses:
    """Two workers that each report a step and a state every second, half a second apart."""

    def __init__(self, clock: Any, *, sleep_at: int) -> None:
        self.clock, self.sleep_at = clock, sleep_at
        self.round = 0
        self.signals: list[int] = []

    @property
    def running(self) -> tuple[int, ...]:
        return (0, 1) if self.round < ROUNDS else ()

    def poll(self, timeout_s: float) -> Iterator[WorkerMessage]:
        self.round += 1
        self.clock.now += 3600.0 if self.round == self.sleep_at else 0.1
        worker, rest = divmod(self.round % 10, 5)
        if rest == 0:
            start: list[Message] = [Started(1)] if self.round <= 10 else []
            for message in [*start, Stat("S"), Step(self.round)]:
                yield WorkerMessage(worker, event=WorkerEvent(worker, "", message))

    def signal(self, worker: int, number: int) -> None:
        self.signals.append(number)

    def stop(self, grace_s: float) -> None:
        self.round = ROUNDS


# The suspension falls between two messages, or before the next one of either worker.
@pytest.mark.parametrize("sleep_at", [103, 105, 110])
def test_suspension_of_an_hour_is_not_a_hang(
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
