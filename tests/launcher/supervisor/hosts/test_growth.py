"""An attempt that ends so that the job can grow, with scripted workers."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tenfold.launcher.job.events import Error, Exit, Message, Phase, Started, Step, WorkerEvent
from tenfold.launcher.job.worker_record import WorkerRecord
from tenfold.launcher.supervisor.attempt import (
    GROWTH_GRACE_S,
    SILENT_START_S,
    TICK_S,
    Attempt,
)
from tenfold.launcher.supervisor.watchdog import WatchPolicy
from tenfold.launcher.supervisor.worker_processes import WorkerMessage
from tenfold.launcher.worker.stop_signals import StopRequest

GROWTH = "host-1 is back: saving a checkpoint to go on with 3 workers"


class Workers:
    """Two workers that send the messages of `rounds`, and end with `ends` when told to stop."""

    def __init__(self, clock: Any, rounds: list[list[WorkerMessage]], ends: list[WorkerMessage]):
        self.clock = clock
        self.rounds = rounds
        self.ends = ends
        self.graces: list[float] = []

    @property
    def running(self) -> tuple[int, ...]:
        return (0, 1) if self.rounds else ()

    def poll(self, timeout_s: float) -> Iterator[WorkerMessage]:
        self.clock.now += TICK_S
        yield from self.rounds.pop(0)

    def stop(self, grace_s: float) -> None:
        self.graces.append(grace_s)
        self.rounds = [self.ends]


class NullView:
    """A view, and logs, that drop everything."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


def both(message: Message, phase: str = "") -> list[WorkerMessage]:
    return [WorkerMessage(worker, event=WorkerEvent(worker, phase, message)) for worker in (0, 1)]


def ended(*codes: int, by_us: bool = True) -> list[WorkerMessage]:
    return [
        WorkerMessage(worker, event=WorkerEvent(worker, "", Exit(code, by_us=by_us)))
        for worker, code in enumerate(codes)
    ]


Grow = Callable[..., tuple[Attempt, Workers]]


@pytest.fixture
def grow(monkeypatch: pytest.MonkeyPatch, clock: Any) -> Grow:
    """Run an attempt that could grow from its start on."""
    monkeypatch.setattr("tenfold.launcher.supervisor.attempt.time", clock)

    def run(
        rounds: list[list[WorkerMessage]], ends: list[WorkerMessage], stops: int = 0
    ) -> tuple[Attempt, Workers]:
        processes = Workers(clock, [both(Started(7)), *rounds], ends)
        stop = StopRequest()
        for _ in range(stops):
            stop.request(2)
        null: Any = NullView()
        attempt = Attempt(
            processes=processes,  # type: ignore[arg-type]
            records=(WorkerRecord(0), WorkerRecord(1)),
            view=null,
            logs=null,
            stop=stop,
            watch=WatchPolicy(),
            grace_s=5.0,
            failure_grace_s=0.0,
            find_growth=lambda: GROWTH,
        )
        attempt.run()
        return attempt, processes

    return run


@pytest.mark.parametrize("codes", [(76, 76), (-15, -15), (0, 0), (1, -9)])
def test_workers_save_and_stop_however_they_end(grow: Grow, codes: tuple[int, int]) -> None:
    attempt, processes = grow([both(Step(1)), both(Step(2))], ended(*codes))
    assert attempt.stopped_to_grow
    assert (attempt.growth, attempt.verdict, attempt.cancelled) == (GROWTH, None, False)
    assert processes.graces == [GROWTH_GRACE_S]  # there is no hurry


def test_errors_of_stopping_workers_do_not_count(grow: Grow) -> None:
    lost_peer = both(Error("UnavailableError", "a peer has closed its connection"))
    attempt, processes = grow([both(Step(1)), both(Step(2))], [*lost_peer, *ended(1, 1)])
    assert attempt.stopped_to_grow
    assert attempt.verdict is None
    assert len(processes.graces) == 1


def test_growth_waits_for_the_first_step(grow: Grow) -> None:
    """Workers that start have nothing to save; those that report nothing do not wait."""
    starting = [both(Phase(), "import"), both(Phase(), "build"), both(Phase(), "first_step")]
    attempt, _ = grow([*starting, both(Step(1), "training"), both(Step(2))], ended(76, 76))
    assert [record.step for record in attempt.records] == [1, 1]
    silent, _ = grow([[]] * round(2 * SILENT_START_S / TICK_S), ended(-15, -15))
    assert silent.stopped_to_grow
    short, _ = grow([[]] * round(SILENT_START_S / TICK_S / 2), ended(-15, -15))
    assert not short.growth


def test_finished_job_does_not_grow(grow: Grow) -> None:
    last = both(Step(9, total_steps=9))
    attempt, _ = grow([last, []], ended(0, 0))
    assert not attempt.stopped_to_grow
    assert attempt.verdict is None


def test_failure_comes_before_growth(grow: Grow) -> None:
    failed = [*both(Step(1)), *ended(3, 0, by_us=False)]
    attempt, _ = grow([failed, [], [], []], ended(3, 0))
    assert not attempt.stopped_to_grow
    assert attempt.verdict is not None


def test_stop_request_comes_before_growth(grow: Grow) -> None:
    attempt, processes = grow([both(Step(1)), []], ended(76, 76), stops=1)
    assert attempt.cancelled
    assert not attempt.stopped_to_grow
    assert processes.graces == [5.0]
