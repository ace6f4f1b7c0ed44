"""The progress of a job: what its workers do, its rate, and the time left."""

from collections.abc import Callable

import pytest

from tenfold.launcher.display.progress.job_progress import (
    RATE_WINDOW_S,
    Activity,
    ProgressTracker,
    group_activities,
    track_job,
)
from tenfold.launcher.job.events import Epoch, Step, WorkerEvent
from tenfold.launcher.job.job_spec import JobSpec
from tenfold.launcher.job.worker_record import WorkerRecord
from tenfold.models.train_config import TrainConfig

Worker = Callable[..., WorkerRecord]


def do_step(record: WorkerRecord, now: float, step: int, rate: float | None = None) -> None:
    message = Step(step, 3, 100, 0.5, rate)
    record.take_event(WorkerEvent(record.index, "training", message), now)


def test_time_left_is_at_the_mean_pace_of_the_attempt(worker: Worker) -> None:
    tracker, record = ProgressTracker(), worker(0)
    assert tracker.progress([record], 0.0).remaining_s is None
    do_step(record, 50.0, 20)
    assert tracker.progress([record], 50.0).remaining_s is None  # a pace needs two reports
    do_step(record, 60.0, 40)
    progress = tracker.progress([record], 60.0)
    assert (progress.step, progress.epoch, progress.loss) == (40, 3, 0.5)
    assert progress.remaining_s == pytest.approx(30.0)
    later = tracker.progress([record], 65.0)
    assert (later.remaining_s, later.stalled_s) == (pytest.approx(30.0), pytest.approx(5.0))
    again = worker(0)  # a restart: the pause says nothing about the pace
    do_step(again, 500.0, 30)
    assert tracker.progress([again], 500.0).remaining_s is None
    do_step(again, 501.0, 40)
    assert tracker.progress([again], 501.0).remaining_s == pytest.approx(6.0)
    do_step(again, 502.0, 100)
    assert tracker.progress([again], 502.0).remaining_s == 0.0


@pytest.mark.parametrize(("is_total", "rate"), [(True, 150.0), (False, 300.0)])
def test_rate_is_of_all_workers_without_compiling(
    worker: Worker, is_total: bool, rate: float
) -> None:
    tracker, records = ProgressTracker(rate_is_total=is_total), [worker(0), worker(1)]
    for record in records:
        do_step(record, 1.0, 1, 3.0)
    assert tracker.progress(records, 1.0).records_per_s is None
    do_step(records[0], 2.0, 2, 100.0)
    do_step(records[1], 2.0, 2, 200.0)
    assert tracker.progress(records, 2.0).records_per_s == pytest.approx(rate)
    for record in records:
        do_step(record, 3.0, 3, 400.0)
    mean = tracker.progress(records, 3.0).records_per_s
    assert mean == pytest.approx((rate + (400.0 if is_total else 800.0)) / 2)
    last = tracker.progress(records, 4.0 + RATE_WINDOW_S).records_per_s
    assert last == pytest.approx(400.0 if is_total else 800.0)


def test_step_is_that_of_the_slowest_running_worker(worker: Worker) -> None:
    ended = worker(1, step={"step": 2}, exit={"code": 1})
    records = [worker(0, step={"step": 9}), ended, worker(2, step={"step": 7})]
    assert ProgressTracker().progress(records, 100.0).step == 7
    assert ProgressTracker().progress([ended], 100.0).step == 2


def test_activities_are_grouped_the_least_advanced_first(worker: Worker) -> None:
    records = [
        worker(0, now=90.0, phase={"phase": "rendezvous"}),
        worker(1, now=99.0, phase={"phase": "import"}),
        worker(2, now=80.0, phase={"phase": "rendezvous"}),
        worker(3, started={"pid": 7}, exit={"code": 0}),
        worker(4, started={"pid": 7}, stat={"state": "T"}),
    ]
    assert group_activities(records, 100.0) == (
        Activity("stopped", 0.0, (4,)),
        Activity("importing TensorFlow", 1.0, (1,)),
        Activity("waiting for all workers", 20.0, (0, 2)),
        Activity("done", 0.0, (3,)),
    )


def test_epochs_give_the_best_value_and_their_number(worker: Worker) -> None:
    tracker = ProgressTracker(epochs=3)
    assert tracker.progress([], 1.0).epochs == 3
    tracker.take_epoch(Epoch(0, 9, 1.0, {"val_accuracy": 0.5}))
    tracker.take_epoch(Epoch(1, 9, 0.5, {"val_accuracy": 0.4}))
    progress = tracker.progress([worker(0)], 1.0)
    assert progress.epochs == 9
    assert progress.best
    assert (progress.best.value, progress.best.epoch) == (0.5, 0)


def test_job_gives_the_name_and_the_epochs() -> None:
    train = TrainConfig("shards", "/runs/first", epochs=7)
    job = JobSpec(("python",), 2, "/runs/first", train=train)
    assert track_job(job) == ProgressTracker("first", 7, rate_is_total=True)
    program = JobSpec(("python",), 2, "gs://bucket/runs/two")
    assert track_job(program) == ProgressTracker("two", None, rate_is_total=False)
