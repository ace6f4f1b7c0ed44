"""Goodput: every millisecond of a launch belongs to one kind of time."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenfold.launcher.job.events import (
    PHASES,
    CheckpointSaved,
    Error,
    NotFinite,
    Phase,
    Resumed,
    Started,
)
from tenfold.launcher.job.history.goodput import KINDS, TimePart, lose_after
from tenfold.launcher.job.history.goodput_meter import (
    MAX_PARTS,
    GoodputMeter,
    measure_goodput,
)
from tenfold.launcher.job.history.history_line import (
    Entry,
    HistoryLine,
    LaunchBegun,
    StepProgress,
    WorkerExit,
)

START = 1_700_000_000.0


def phase(time: float, name: str, worker: int = 0) -> HistoryLine:
    return HistoryLine(START + time, Phase(), worker, name)


def line(time: float, entry: Entry, worker: int = 0) -> HistoryLine:
    return HistoryLine(START + time, entry, worker, "training")


def step(time: float, number: int, *, waited: float = 0.0, exchanged: float | None = None,
         worker: int = 0) -> HistoryLine:  # fmt: skip
    entry = StepProgress(number, waited_s=waited, exchanged_s=exchanged)
    return HistoryLine(START + time, entry, worker, "training")


def attempt(begin: float, first: int) -> list[HistoryLine]:
    """A start of worker 0 that makes step `first` after 4 s."""
    return [
        line(begin, Started(1)),
        phase(begin + 1, "import"),
        phase(begin + 2, "build"),
        step(begin + 4, first),
        phase(begin + 4, "training"),
    ]


def parts(lines: list[HistoryLine], *, end: float, state: str = "succeeded") -> dict[str, float]:
    measured = measure_goodput(lines, now=START + end, state=state)
    assert measured is not None
    return {kind: seconds for kind, seconds in measured.parts.items() if seconds}


LAUNCH = [line(0, LaunchBegun(2))]


def test_healthy_run_is_divided_by_phases_waiting_and_exchange() -> None:
    lines = [
        *LAUNCH, *attempt(1, 10), step(7, 30, waited=0.5, exchanged=0.25), phase(7, "evaluation"),
        phase(8, "checkpoint"), line(8.5, CheckpointSaved("x", 0, 30)), phase(9, "saving"),
        phase(9.25, "done"), line(9.5, WorkerExit(0)),
    ]  # fmt: skip
    assert parts(lines, end=10) == {
        "start": 3.0, "build": 2.0, "steps": 1.25, "input": 0.5, "exchange": 0.25,
        "evaluation": 1.0, "checkpoint": 1.25, "end": 0.75,
    }  # fmt: skip


def test_steps_after_the_checkpoint_are_lost_and_the_rest_until_the_next_step_is_restart() -> None:
    lines = [
        *LAUNCH, *attempt(0, 10), step(8, 50), line(8, CheckpointSaved("x", 0, 20)),
        phase(8, "checkpoint"), phase(9, "training"), step(10, 60),
        line(11, WorkerExit(-9), worker=1), line(12, WorkerExit(1)),
        *attempt(13, 30)[:3], line(15.5, Resumed(20)), *attempt(13, 30)[3:], step(21, 60),
    ]  # fmt: skip
    # Of the 40 steps in 4 s after step 10, 10 are kept; the checkpoint of step 50 is not.
    expected = {
        "start": 2.0,
        "build": 2.0,
        "steps": 1 + 4.0,
        "lost": 3 + 1 + 1 + 1.0,
        "restart": 6.0,
    }
    assert parts(lines, end=21) == expected
    # A failure for good loses what the newest checkpoint does not hold.
    failed = parts(lines, end=21, state="failed")
    assert failed["lost"] == expected["lost"] + 4


def test_restart_without_checkpoint_loses_everything_before() -> None:
    lines = [*LAUNCH, *attempt(0, 10), step(8, 50), line(9, Error("E")), *attempt(10, 16)]
    assert parts(lines, end=15)["lost"] == 5.0
    own = [*LAUNCH, line(0, Started(1)), step(2, 1), step(8, 41), line(9, Error("E")),
           line(10, Started(1)), step(12, 31), step(15, 41)]  # fmt: skip
    # A program of the user's own that goes on with step 31 has kept 30.
    assert parts(own, end=15) == {
        "start": 2.0, "steps": 4.35 + 3, "lost": 1.65 + 1, "restart": 3.0,
    }  # fmt: skip


def test_program_without_steps_and_phases_has_no_goodput() -> None:
    lines = [*LAUNCH, line(0, Started(1)), line(5, WorkerExit(0))]
    assert measure_goodput(lines, now=START + 6, state="succeeded") is None


@pytest.mark.parametrize(("slow_s", "found"), [(0.9, 1), (0.6, None)])
def test_worker_that_the_others_wait_for_is_slow(slow_s: float, found: int | None) -> None:
    """Of each second that ten steps take, worker 0 exchanges 0.45 s and worker 1 the rest."""
    lines = [*LAUNCH]
    for worker in range(2):
        lines += [line(0, Started(1), worker), step(1, 10, worker=worker)]
    for second in range(2, 13):
        lines += [
            step(second, 10 * second, worker=0, exchanged=0.45),
            step(second, 10 * second, worker=1, exchanged=1 - slow_s),
        ]
    measured = measure_goodput(lines, now=START + 13, state="running")
    assert measured is not None
    assert measured.before_exchange_s == pytest.approx((0.055, slow_s / 10))
    assert measured.slow_worker == found
    if found is not None:
        assert "worker 1 is slow: 90 ms of each step" in measured.slow_sentence()


ENTRIES = st.one_of(
    st.builds(Started, st.just(1)),
    st.just(Phase()),
    st.builds(
        StepProgress, st.integers(0, 200), waited_s=st.floats(0, 50),
        exchanged_s=st.none() | st.floats(0, 50),
    ),
    st.builds(Resumed, st.integers(0, 200)),
    st.builds(CheckpointSaved, st.just("x"), st.just(0), st.integers(0, 200)),
    st.builds(WorkerExit, st.sampled_from([0, 1, -9])),
    st.just(Error()),
    st.builds(NotFinite, st.just(3), st.just(0), st.just("loss"), st.just("stop"),
              kept_step=st.none() | st.integers(0, 200)),
)  # fmt: skip
LINES = st.lists(
    st.builds(
        HistoryLine, st.floats(START - 5, START + 100), ENTRIES, st.integers(0, 2),
        st.sampled_from(["", *PHASES]),
    )
)  # fmt: skip


@given(LINES, st.floats(0, 200), st.sampled_from(["running", "succeeded", "failed"]))
def test_parts_sum_exactly_to_the_wall_time(
    lines: list[HistoryLine], seconds: float, state: str
) -> None:
    """Whatever a history holds, in whatever order, and if the clock was set meanwhile."""
    meter = GoodputMeter()
    for each in [*LAUNCH, *lines]:
        meter.take(each)
    seconds = round(seconds, 3)
    for wall in (None, seconds):
        measured = meter.goodput(START + 100, seconds=wall, state=state)
        if measured is None:
            continue
        assert tuple(measured.parts) == tuple(KINDS)
        assert min(measured.parts.values()) >= 0
        in_ms = sum(round(1000 * part) for part in measured.parts.values())
        assert in_ms == round(1000 * measured.seconds)
        assert measured.seconds == (seconds if wall is not None else 100)
        assert 0 <= measured.share <= 1


def test_long_job_needs_no_more_memory_and_loses_nothing() -> None:
    meter = GoodputMeter()
    lines = [*LAUNCH, *attempt(0, 1)]
    lines += [step(4 + n, 1 + n, waited=0.25) for n in range(1, 3 * MAX_PARTS)]
    for each in lines:
        meter.take(each)
    assert len(meter._parts) <= MAX_PARTS
    measured = meter.goodput(lines[-1].time, state="running")
    assert measured is not None
    assert measured.parts["input"] == (3 * MAX_PARTS - 1) / 4


def test_losing_keeps_every_millisecond() -> None:
    whole = [TimePart("steps", 997, 3, 10, 300, 500), TimePart("checkpoint", 5, 10, 10)]
    for kept in range(12):
        halves = lose_after(whole, kept)
        assert sum(part.ms for part in halves) == 1002
        assert all(math.isclose(sum(p.parts().values()), p.ms) for p in halves)
