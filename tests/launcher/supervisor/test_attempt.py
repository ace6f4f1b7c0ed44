"""One attempt, without processes: what a test with processes meets once in a thousand times."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from tenfold.launcher.job.events import Error, Exit, Message, Started, Step, WorkerEvent
from tenfold.launcher.job.worker_record import WorkerRecord
from tenfold.launcher.supervisor.attempt import TICK_S, Attempt
from tenfold.launcher.supervisor.watchdog import WatchPolicy
from tenfold.launcher.supervisor.worker_processes import WorkerMessage
from tenfold.launcher.worker.stop_signals import StopRequest


class WorkerProcesses:
    """Workers that take note of how they are stopped, and end when they are killed."""

    def __init__(self) -> None:
        self.graces: list[float] = []

    @property
    def running(self) -> tuple[int, ...]:
        return () if 0.0 in self.graces else (0,)

    def poll(self, timeout_s: float) -> tuple[()]:
        assert len(self.graces) < 10, "the second request was lost"
        return ()

    def stop(self, grace_s: float) -> None:
        self.graces.append(grace_s)


class View:
    """Asks to stop once more as soon as it has read of the first request."""

    def __init__(self, stop: StopRequest) -> None:
        self.stop = stop
        self.ticks = 0

    def note(self, text: str) -> None:
        if "once more" in text:
            self.stop._on_signal(2, None)

    def tick(self, records: Any) -> None:
        self.ticks += 1
        assert self.ticks < 100, "the second request was lost"


def attempt(stop: StopRequest, processes: WorkerProcesses) -> Attempt:
    return Attempt(
        processes=processes,  # type: ignore[arg-type]
        records=(),
        view=View(stop),  # type: ignore[arg-type]
        logs=None,  # type: ignore[arg-type]
        stop=stop,
        watch=WatchPolicy(),
        grace_s=600.0,
        failure_grace_s=0.0,
    )


def test_a_second_request_is_obeyed_however_soon_it_comes() -> None:
    stop, processes = StopRequest(), WorkerProcesses()
    stop._on_signal(2, None)
    attempt(stop, processes).run()
    assert processes.graces == [600.0, 0.0]


def test_two_requests_at_once_do_not_wait() -> None:
    stop, processes = StopRequest(), WorkerProcesses()
    stop._on_signal(2, None)
    stop._on_signal(2, None)
    attempt(stop, processes).run()
    assert processes.graces == [0.0]


Round = tuple[float, list[WorkerMessage]]


class ScriptedGang:
    """Two workers that say in each round what stands in `rounds`, after a pause in seconds."""

    def __init__(self, clock: Any, rounds: list[Round]) -> None:
        self.clock = clock
        self.rounds = rounds

    @property
    def running(self) -> tuple[int, ...]:
        return (0, 1) if self.rounds else ()

    def poll(self, timeout_s: float) -> Iterator[WorkerMessage]:
        pause_s, said = self.rounds.pop(0)
        self.clock.now += pause_s
        yield from said

    def stop(self, grace_s: float) -> None:
        self.rounds.clear()


class Silent:
    """A view, and logs, that keep nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


def sent(worker: int, message: Message) -> WorkerMessage:
    return WorkerMessage(worker, event=WorkerEvent(worker, "training", message))


def both(message: Message) -> list[WorkerMessage]:
    return [sent(worker, message) for worker in (0, 1)]


RunScript = Callable[[list[Round]], Attempt]


@pytest.fixture
def run_script(monkeypatch: pytest.MonkeyPatch, clock: Any) -> RunScript:
    monkeypatch.setattr("tenfold.launcher.supervisor.attempt.time", clock)
    return partial(_run_script, clock)


def _run_script(clock: Any, rounds: list[Round]) -> Attempt:
    processes: Any = ScriptedGang(clock, [(TICK_S, both(Started(7))), *rounds])
    silent: Any = Silent()
    one = Attempt(
        processes=processes,
        records=(WorkerRecord(0), WorkerRecord(1)),
        view=silent,
        logs=silent,
        stop=StopRequest(),
        watch=WatchPolicy(),
        grace_s=0.0,
        failure_grace_s=0.0,
    )
    one.run()
    return one


STEPS = [(TICK_S, both(Step(step))) for step in range(1, 6)]


def test_a_cause_may_show_itself_after_the_machine_stood_still(
    run_script: RunScript,
) -> None:
    """Worker 0 blames a peer, and worker 1, the cause, could not get a word in."""
    blamed, cause = [sent(0, Exit(75))], [sent(1, Exit(3))]
    one = run_script([*STEPS, (TICK_S, blamed), (10.0, []), (TICK_S, cause)])
    assert one.verdict is not None
    assert one.verdict.first.worker == 1


def test_who_tells_its_error_may_go_before_the_verdict(run_script: RunScript) -> None:
    error = [sent(1, Error("ValueError", "no"))]
    dying: list[Round] = [(TICK_S, [])] * 15
    gone = [(TICK_S, [sent(1, Exit(1))]), (TICK_S, [])]
    one = run_script([*STEPS, (TICK_S, error), *dying, *gone])
    assert one.verdict is not None
    assert (one.verdict.first.worker, one.verdict.first.exit_code) == (1, 1)
    # One that does not go keeps nobody waiting for long.
    one = run_script([*STEPS, (TICK_S, error), *dying * 2])
    assert one.verdict is not None
    assert one.verdict.first.exit_code is None


def test_nobody_waits_where_all_have_said_what_they_know(run_script: RunScript) -> None:
    """The killed one is the cause; who blames it may take its time to go."""
    killed = [sent(1, Exit(-9)), sent(0, Error("UnavailableError", "peer"))]
    one = run_script([*STEPS, (TICK_S, killed), (TICK_S, both(Step(9)))])
    assert one.verdict is not None
    assert one.verdict.first.worker == 1
    assert [record.step for record in one.records] == [5, 5], "it was judged before that"
