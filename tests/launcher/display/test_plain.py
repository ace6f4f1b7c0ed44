"""The plain lines while a job runs: no line says the same as the one before."""

import io
import itertools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from tenfold.launcher.display.plain import PLAIN_INTERVAL_S, PlainView
from tenfold.launcher.display.progress.job_progress import ProgressTracker
from tenfold.launcher.job.history.history_line import Resized
from tenfold.launcher.job.worker_record import WorkerRecord

Worker = Callable[..., WorkerRecord]
STEP = {"step": 50, "total_steps": 2000, "loss": 0.123456, "records_per_s": 1234.5, "epoch": 0}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The clock of the view, in seconds."""
    clock = SimpleNamespace(now=1000.0)
    clock.monotonic = clock.time = lambda: clock.now
    monkeypatch.setattr("tenfold.launcher.display.plain.time", clock)
    return clock


def lines_of(stream: io.StringIO) -> list[str]:
    return [line.removeprefix("[tenfold] ") for line in stream.getvalue().splitlines()]


def test_progress_is_one_line_per_interval(clock: SimpleNamespace, worker: Worker) -> None:
    stream = io.StringIO()
    view = PlainView(stream, tracker=ProgressTracker("run", 4, rate_is_total=True))
    records = [worker(index) for index in range(2)]
    counts = []
    for tick in range(100):  # a tenth of an interval each
        clock.now = 1000.0 + tick * PLAIN_INTERVAL_S / 10
        for record in records:
            reported = worker(0, step={**STEP, "step": tick}).progress
            record.step, record.progress, record.total_steps = tick, reported, 2000
            record.phase = "training"
        view.tick(records)
        counts.append(stream.getvalue().count("\n"))
    assert counts == [tick // 10 for tick in range(100)]
    assert lines_of(stream)[:2] == [
        "step 10/2,000 (0%), epoch 1/4, loss 0.1235",
        "step 20/2,000 (1%), epoch 1/4, loss 0.1235; 1,234 records/s; about 33 min 00 s left",
    ]


def test_progress_tells_missing_workers(clock: SimpleNamespace, worker: Worker) -> None:
    """As long as a job runs with fewer workers than before its hosts changed."""
    stream = io.StringIO()
    view = PlainView(stream, tracker=ProgressTracker("run", 4, rate_is_total=True))
    view.resized(Resized(4, 3, ("a", "b", "c"), "3 workers instead of 4: d is gone"))
    for workers in (3, 4):
        clock.now += 3 * PLAIN_INTERVAL_S
        view.tick([worker(index, step=STEP) for index in range(workers)])
    told, small, full = lines_of(stream)
    assert told == "3 workers instead of 4: d is gone"
    assert "; 3 of 4 workers" in small
    assert "workers" not in full


def test_progress_that_stands_still_is_shown_ever_less(
    clock: SimpleNamespace, worker: Worker
) -> None:
    stream = io.StringIO()
    view = PlainView(stream)
    records = [worker(index, now=1000.0, phase={"phase": "build"}) for index in range(2)]
    for _ in range(200):
        clock.now += 1.0
        view.tick(records)
    assert lines_of(stream) == [
        "building the model",
        "building the model (20 s so far)",
        "building the model (40 s so far)",
        "building the model (1 min 20 s so far)",
        "building the model (2 min 40 s so far)",
    ]


def test_wait_prints_the_activity_then_its_time(clock: SimpleNamespace) -> None:
    stream = io.StringIO()
    view = PlainView(stream)
    for _ in range(45):
        view.wait("importing TensorFlow")
        clock.now += 1.0
    assert lines_of(stream) == [
        "importing TensorFlow",
        "importing TensorFlow (10 s so far)",
        "importing TensorFlow (30 s so far)",
    ]


PROGRESS: list[tuple[list[dict[str, Any]], str]] = [
    ([{}, {}], "starting"),
    ([{"started": {"pid": 7}}] * 2, "running"),
    (
        [{"step": {"step": 4}}, {"step": STEP, "exit": {"code": 1}}],
        "step 4; worker 0 training, worker 1 ended (1)",
    ),
    (
        [{"phase": {"phase": "import"}}] * 3 + [{"phase": {"phase": "rendezvous"}}] * 12,
        "workers 0, 1 and 2 importing TensorFlow, 12 workers waiting for all workers",
    ),
    # The first report's rate includes compiling and is not shown.
    (
        [{"step": STEP, "phase": {"phase": "evaluation"}}] * 2,
        "step 50/2,000 (2%), epoch 1, loss 0.1235; evaluating",
    ),
]


@pytest.mark.parametrize(("events", "line"), PROGRESS)
def test_progress_line(
    monkeypatch: pytest.MonkeyPatch, worker: Worker, events: list[dict[str, Any]], line: str
) -> None:
    monkeypatch.setattr("tenfold.launcher.display.plain.PLAIN_INTERVAL_S", 0.0)
    stream = io.StringIO()
    records = [worker(index, **each) for index, each in zip(itertools.count(), events)]
    PlainView(stream).tick(records)
    assert lines_of(stream) == [line]
