"""Hangs and their culprits, as tables."""

import pytest

from tenfold.launcher.job.events import Exit, Phase, Started, Stat, Step, WorkerEvent
from tenfold.launcher.job.worker_record import WorkerRecord
from tenfold.launcher.supervisor.watchdog import WatchPolicy, find_hang


def worker(index, *, phases=(), state=""):
    """A worker that has started and gone through `phases`, pairs of a name and a time."""
    record = WorkerRecord(index, state=state)
    record.take_event(WorkerEvent(index, "", Started(100 + index)), 0.0)
    for phase, since in phases:
        record.take_event(WorkerEvent(index, phase, Phase()), since)
    return record


def heard(record, at):
    """The same worker, whose agent sent its last message at `at`."""
    record.take_event(WorkerEvent(record.index, "", Stat("S")), at)
    return record


def training(index, *, steps, state="", phases=(("training", 0.0),)):
    record = worker(index, phases=phases, state=state)
    for number, at in enumerate(steps):
        record.take_event(WorkerEvent(index, "training", Step(number)), at)
    return record


def listens(record, since):
    for at in (since, since + 1, since + 2):
        record.take_event(WorkerEvent(record.index, "", Stat("", listening=True)), at)
    return record


def ended(record):
    record.take_event(WorkerEvent(record.index, "", Exit(0)), 5)
    return record


WATCH = WatchPolicy(hang_timeout_s=10, rendezvous_timeout_s=30)


@pytest.mark.parametrize(
    ("records", "now", "culprits"),
    [
        # steps of 1 s: ten times that is 10 s
        ([training(0, steps=[1, 2, 3]), training(1, steps=[1, 2, 3])], 12, None),
        ([training(0, steps=[1, 2, 3]), training(1, steps=[1, 2, 3])], 13.5, (0, 1)),
        # steps of 5 s: 50 s
        ([training(0, steps=[5, 10]), training(1, steps=[5, 10])], 59, None),
        ([training(0, steps=[5, 10]), training(1, steps=[5, 10])], 61, (0, 1)),
        # the worker that is behind, and the worker that is stopped
        ([training(0, steps=[1, 2, 3]), training(1, steps=[1, 2])], 30, (1,)),
        ([training(0, steps=[1, 2], state="T"), training(1, steps=[1, 2])], 30, (0,)),
        # the other has ended successfully long ago
        ([training(0, steps=[1, 2, 3], state="T"), ended(training(1, steps=[1, 2, 3]))], 30, (0,)),
        # one still reports: no hang yet
        ([training(0, steps=[1, 2]), training(1, steps=[1, 2, 29])], 30, None),
        # a first step may take long, because it compiles
        ([training(0, steps=[], phases=[("first_step", 0.0)])], 600, None),
        ([training(0, steps=[], phases=[("first_step", 0.0)])], 901, (0,)),
        # an evaluation that took 3 s before
        ([training(0, steps=[], phases=[("evaluation", 0), ("training", 3), ("evaluation", 5)])],
         30, None),
        ([training(0, steps=[], phases=[("evaluation", 0), ("training", 3), ("evaluation", 5)])],
         36, (0,)),
        # a peer that does not come to the rendezvous
        ([worker(0, phases=[("rendezvous", 5.0)]), worker(1, phases=[("import", 0.0)])], 34, None),
        ([worker(0, phases=[("rendezvous", 5.0)]), worker(1, phases=[("import", 0.0)])], 36, (1,)),
        ([worker(0, phases=[("rendezvous", 5.0)]), worker(1)], 36, (1,)),
        # all have come, but none continues
        ([worker(n, phases=[("rendezvous", 5.0)]) for n in range(2)], 36, (0, 1)),
        # an agent that is silent alone; if all are silent, the supervisor was suspended
        ([heard(worker(0), 100), heard(worker(1), 60)], 100, (1,)),
        ([heard(worker(0), 100), heard(worker(1), 97)], 100, None),
        ([heard(worker(0), 60), heard(worker(1), 60)], 100, None),
        # programs that report no phases do not wait before they open their port
        ([listens(worker(0), 200.0), worker(1)], 229, None),
        ([listens(worker(0), 200.0), worker(1)], 231, (1,)),
        ([listens(worker(0), 200.0), listens(worker(1), 205.0), worker(2)], 234, None),
        ([listens(worker(0), 200.0), listens(worker(1), 205.0), worker(2)], 236, (2,)),
        # programs that report nothing are not judged
        ([worker(0), worker(1)], 10**6, None),
    ],
)  # fmt: skip
def test_hangs_are_found(records, now, culprits):
    finding = find_hang(WATCH, records, now=now)
    assert (finding.workers if finding else None) == culprits


SHORT = WatchPolicy(hang_timeout_s=1)


def looked_at(index, at, state):
    """A worker whose last step is at 10.0, with a state reported at `at`."""
    record = worker(index)
    for step in (4, 5):
        record.take_event(WorkerEvent(index, "training", Step(step)), 9.5 + step / 10)
    record.take_event(WorkerEvent(index, "", Stat(state)), at)
    return record


@pytest.mark.parametrize(
    ("looks", "now", "culprits"),
    [
        # both have been silent for too long, and which of them is stopped is known
        ([(11.5, "S"), (11.6, "T")], 12.0, (1,)),
        # the state of worker 1 is from before its silence
        ([(11.5, "S"), (9.95, "S")], 12.0, None),
        # a state reported right after the step belongs to the step
        ([(11.5, "S"), (10.1, "S")], 12.0, None),
        # an agent that is slightly late is not on an unresponsive host
        ([(11.5, "S"), (10.6, "S")], 11.7, (0, 1)),
        # the agent of worker 1 has been silent for long, the other not
        ([(19.5, "S"), (10.4, "S")], 20.0, (1,)),
    ],
)
def test_hang_waits_for_the_state_of_workers(looks, now, culprits):
    records = [looked_at(index, at, state) for index, (at, state) in enumerate(looks)]
    finding = find_hang(SHORT, records, now=now)
    assert (finding.workers if finding else None) == culprits
