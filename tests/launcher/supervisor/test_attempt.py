"""One attempt with scripted workers: races that real processes show once in a thousand runs."""

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
    """Workers that record each stop command, and end when they are killed."""

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
    """Sends a second stop request as soon as the first one is shown."""

    def __init__(self, stop: StopRequest) -> None:
        self.stop = stop
        self.ticks = 0

    def note(self, text: str) -> None:
        if "interrupt again" in text:
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


def test_second_stop_request_kills_however_soon() -> None:
    stop, processes = StopRequest(), WorkerProcesses()
    stop._on_signal(2, None)
    attempt(stop, processes).run()
    assert processes.graces == [600.0, 0.0]


def test_two_stop_requests_at_once_kill() -> None:
    stop, processes = StopRequest(), WorkerProcesses()
    stop._on_signal(2, None)
    stop._on_signal(2, None)
    attempt(stop, processes).run()
    assert processes.graces == [0.0]


Round = tuple[float, list[WorkerMessage]]


class ScriptedWorkers:
    """Two workers that send, round by round, the messages of `rounds` after a pause in s."""

    def __init__(self, clock: Any, rounds: list[Round]) -> None:
        self.clock = clock
        self.rounds = rounds

    @property
    def running(self) -> tuple[int, ...]:
        return (0, 1) if self.rounds else ()

    def poll(self, timeout_s: float) -> Iterator[WorkerMessage]:
        pause_s, messages = self.rounds.pop(0)
        self.clock.now += pause_s
        yield from messages

    def stop(self, grace_s: float) -> None:
        self.rounds.clear()


class NullView:
    """A view, and logs, that drop everything."""

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
    processes: Any = ScriptedWorkers(clock, [(TICK_S, both(Started(7))), *rounds])
    null: Any = NullView()
    attempt = Attempt(
        processes=processes,
        records=(WorkerRecord(0), WorkerRecord(1)),
        view=null,
        logs=null,
        stop=StopRequest(),
        watch=WatchPolicy(),
        grace_s=0.0,
        failure_grace_s=0.0,
    )
    attempt.run()
    return attempt


STEPS = [(TICK_S, both(Step(step))) for step in range(1, 6)]


def test_cause_is_awaited_after_a_suspension(
    run_script: RunScript,
) -> None:
    """Worker 0 blames a peer; the message of worker 1, the cause, is delayed by a suspension."""
    blamed, cause = [sent(0, Exit(75))], [sent(1, Exit(3))]
    done = run_script([*STEPS, (TICK_S, blamed), (10.0, []), (TICK_S, cause)])
    assert done.verdict is not None
    assert done.verdict.first.worker == 1


def test_verdict_waits_for_the_exit_of_the_cause(run_script: RunScript) -> None:
    error = [sent(1, Error("ValueError", "no"))]
    dying: list[Round] = [(TICK_S, [])] * 15
    gone = [(TICK_S, [sent(1, Exit(1))]), (TICK_S, [])]
    done = run_script([*STEPS, (TICK_S, error), *dying, *gone])
    assert done.verdict is not None
    assert (done.verdict.first.worker, done.verdict.first.exit_code) == (1, 1)
    # A cause that does not exit delays the verdict only for a while.
    done = run_script([*STEPS, (TICK_S, error), *dying * 2])
    assert done.verdict is not None
    assert done.verdict.first.exit_code is None


def test_verdict_comes_at_once_if_all_have_failed(run_script: RunScript) -> None:
    """Worker 1 was killed and is the cause; worker 0, which blames it, may exit later."""
    killed = [sent(1, Exit(-9)), sent(0, Error("UnavailableError", "peer"))]
    done = run_script([*STEPS, (TICK_S, killed), (TICK_S, both(Step(9)))])
    assert done.verdict is not None
    assert done.verdict.first.worker == 1
    assert [record.step for record in done.records] == [5, 5], (
        "the verdict came before the next step"
    )
