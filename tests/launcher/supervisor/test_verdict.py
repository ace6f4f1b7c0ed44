"""Verdicts: which worker failed first, as a table."""

import signal

import pytest

from tenfold.launcher.job.events import Error, Exit, Phase, Started, Stat, WorkerEvent
from tenfold.launcher.job.worker_record import WorkerRecord
from tenfold.launcher.supervisor.verdict import judge

ABORT = "RingReduce: Collective ops is aborted by: Collective has timed out during execution."
STACK = [f'  File "module_{number}.py", line {number} in call' for number in range(50)]
PEER = "UnavailableError: Collective ops is aborted by: Connection reset by peer"


def worker(index, *, code=None, at=0.0, says=(), oom=False, phases=(), state="", lost=False):
    """A worker that printed `says` at `at`, went through `phases` and exited with `code`."""
    record = WorkerRecord(index, state=state)
    record.take_event(WorkerEvent(index, "", Started(100 + index)), 0.0)
    for phase, since in phases:
        record.take_event(WorkerEvent(index, phase, Phase()), since)
    for line in says:
        record.take_line(line, at)
    if code is not None:
        record.take_event(WorkerEvent(index, "", Exit(code, oom)), at + 0.1)
    if lost:
        record.mark_lost(at)
    return record


def heard(record, at, *, links=()):
    """The same worker, with a message of its agent at `at`."""
    ended = record.agent_at
    record.take_event(WorkerEvent(record.index, "", Stat("S", links_down=tuple(links))), at)
    record.agent_at = max(at, ended)
    return record


def trace(error):
    return ("Traceback (most recent call last):", '  File "a.py", line 1, in <module>', error)


@pytest.mark.parametrize(
    ("workers", "cause", "error"),
    [
        # the first exit is a consequence, the cause follows
        ([worker(0, code=1, at=1, says=trace(PEER)), worker(1, code=-9, at=2)], 1, "SIGKILL"),
        # exit code 75 means a consequence
        ([worker(0, code=75, at=1), worker(1, code=3, at=2)], 1, "exited with 3"),
        # two causes: the earlier error, not the earlier exit
        (
            [
                worker(0, code=1, at=5, says=trace("ValueError: second")),
                worker(1, code=1, at=4, says=trace("ValueError: first")),
            ],
            1,
            "ValueError: first",
        ),
        # TensorFlow aborts a survivor: the last lines blame the peer
        (
            [
                worker(0, code=-6, at=1, says=["F tasks are unhealthy: task 1"]),
                worker(1, code=0, at=0),
            ],
            1,
            "exited with 0",
        ),
        # the same, with a stack that is longer than the last lines which are kept
        (
            [
                worker(0, code=-6, at=1, says=[ABORT, "Fatal Python error: Aborted", *STACK]),
                worker(1, state="T"),
            ],
            1,
            "SIGSTOP",
        ),
        # an abort without a lost peer (free(): invalid pointer) is a cause
        (
            [worker(0, code=-6, at=1, says=["free(): invalid pointer"]), worker(1, code=75, at=1)],
            0,
            "SIGABRT",
        ),
        # all blame a peer, but one is stopped, or has raised an exception and still runs
        ([worker(0, code=75, at=1), worker(1, state="T")], 1, "SIGSTOP"),
        ([worker(0, code=75, at=20), worker(1, at=3, says=trace("ValueError: x"))], 1, "x"),
        # a lost host
        ([worker(0, code=75, at=1), worker(1, lost=True, at=2)], 1, "host or agent lost"),
        # the out-of-memory killer
        ([worker(0, code=-9, at=1, oom=True), worker(1, code=75, at=1)], 0, "out-of-memory"),
        # an unresponsive host: its agent is silent while another is not
        ([worker(0, code=75, at=12), heard(worker(1), 2.5)], 1, "no heartbeat"),
        # a host without a link: even the error of its own worker is a consequence
        (
            [worker(0, code=75, at=11), heard(worker(1, code=75, at=10), 9.0, links=["eth0"])],
            1,
            "no link on eth0",
        ),
        # a link that was down long before does not count
        (
            [worker(0, code=75, at=98), heard(worker(1, code=75, at=99), 9.0, links=["eth0"])],
            0,
            "exited with 75",
        ),
        # an error of its own counts more than the link
        (
            [worker(0, code=75, at=9), heard(worker(1, code=3, at=9), 8.0, links=["e"])],
            1,
            "with 3",
        ),
        # only consequences: the earliest
        ([worker(0, code=75, at=2), worker(1, code=75, at=1)], 1, "exited with 75"),
    ],
)
def test_first_failure_is_the_cause(workers, cause, error):
    verdict = judge(workers)
    assert verdict is not None
    assert verdict.first.worker == cause
    assert error in verdict.first.error
    assert cause not in [failure.worker for failure in verdict.consequences]


def test_no_failure_gives_no_verdict():
    phases = [("training", 0.0), ("done", 1.0)]
    assert judge([worker(0, code=0, phases=phases), worker(1, code=0, phases=phases)]) is None
    assert judge([worker(0), worker(1, code=0)]) is None


@pytest.mark.parametrize(
    ("code", "preempted"), [(76, True), (-signal.SIGTERM, True), (-signal.SIGKILL, False)]
)
def test_preempted_worker_is_recognised(code, preempted):
    verdict = judge([worker(0, code=code), worker(1)])
    assert verdict is not None
    assert verdict.preempted == preempted


@pytest.mark.parametrize(
    "error",
    [
        "ValueError: Attempt to convert a value (PerReplica:{",
        "InvalidArgumentError: Invalid reduction dimension 0 for input with 0 dimensions",
    ],
)
def test_keras_fit_without_repair_names_the_remedy(error):
    header, frame, last = trace(error)
    keras = frame.replace("a.py", "/lib/keras/src/utils/traceback_utils.py")
    for frames, hint in ((keras, True), (frame, False)):
        verdict = judge([worker(0, code=1, at=1, says=(header, frames, last))])
        assert verdict
        assert verdict.first.error.splitlines()[0] == error
        assert ("tenfold.models.keras_fit.repair()" in verdict.first.error) == hint


def test_error_of_all_workers_is_reported_once():
    records = [worker(index) for index in range(3)]
    for record, text in zip(records, ("no label", "no label", "other"), strict=True):
        record.take_event(WorkerEvent(record.index, "build", Error("UserError", text)), 1.0)
    verdict = judge(records)
    assert verdict is not None
    assert verdict.first.error == "UserError: no label"
    assert [failure.error for failure in verdict.consequences] == ["UserError: other"]


def test_missing_package_is_named_with_its_install_line():
    says = trace("ModuleNotFoundError: No module named 'sklearn.svm'")
    verdict = judge([worker(0, code=1, at=1, says=says)])
    assert verdict is not None
    error = verdict.first.error
    assert "No module named 'sklearn.svm'; run 'python -m pip install scikit-learn' wh" in error
