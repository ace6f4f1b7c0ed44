"""Verdicts, restarts, hangs: the supervisor's arithmetic, as tables."""

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenfold.launcher.job.events import Exit, Phase, Started, Stat, Step, WorkerEvent
from tenfold.launcher.job.job_result import Failure
from tenfold.launcher.job.worker_record import TracebackCatcher, WorkerRecord
from tenfold.launcher.supervisor.fault_injection import LossCheck
from tenfold.launcher.supervisor.host_selection import choose_count, worker_counts
from tenfold.launcher.supervisor.restarts import Ending, RestartPolicy, decide
from tenfold.launcher.supervisor.stack_dumps import describe_location, thread_stacks
from tenfold.launcher.supervisor.verdict import judge
from tenfold.launcher.supervisor.watchdog import WatchPolicy, find_hang
from tenfold.launcher.worker.agent import LineBuffer

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
    """The same, and its agent was heard at `at`."""
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
        # exit code 75 says itself that it is a consequence
        ([worker(0, code=75, at=1), worker(1, code=3, at=2)], 1, "exited with 3"),
        # two causes: the earlier words, not the earlier exit
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
        # an abort of one's own (free(): invalid pointer) is a cause
        (
            [worker(0, code=-6, at=1, says=["free(): invalid pointer"]), worker(1, code=75, at=1)],
            0,
            "SIGABRT",
        ),
        # all blame a peer, but one is stopped, or still dying of its own exception
        ([worker(0, code=75, at=1), worker(1, state="T")], 1, "SIGSTOP"),
        ([worker(0, code=75, at=20), worker(1, at=3, says=trace("ValueError: x"))], 1, "x"),
        # a host that is gone
        ([worker(0, code=75, at=1), worker(1, lost=True, at=2)], 1, "went away"),
        # the out-of-memory killer
        ([worker(0, code=-9, at=1, oom=True), worker(1, code=75, at=1)], 0, "out-of-memory"),
        # a host that stands still: its agent says nothing while another does
        ([worker(0, code=75, at=12), heard(worker(1), 2.5)], 1, "not a word from its agent"),
        # a host without a cable: even what its own worker says is a consequence
        (
            [worker(0, code=75, at=11), heard(worker(1, code=75, at=10), 9.0, links=["eth0"])],
            1,
            "eth0 had no cable",
        ),
        # a cable that was out long before is another story
        (
            [worker(0, code=75, at=98), heard(worker(1, code=75, at=99), 9.0, links=["eth0"])],
            0,
            "exited with 75",
        ),
        # a cause of its own counts more than the cable
        (
            [worker(0, code=75, at=9), heard(worker(1, code=3, at=9), 8.0, links=["e"])],
            1,
            "with 3",
        ),
        # nobody but consequences: the earliest
        ([worker(0, code=75, at=2), worker(1, code=75, at=1)], 1, "exited with 75"),
    ],
)
def test_the_cause(workers, cause, error):
    verdict = judge(workers)
    assert verdict is not None
    assert verdict.first.worker == cause
    assert error in verdict.first.error
    assert cause not in [failure.worker for failure in verdict.consequences]


def test_no_failure_no_verdict():
    phases = [("training", 0.0), ("done", 1.0)]
    assert judge([worker(0, code=0, phases=phases), worker(1, code=0, phases=phases)]) is None
    assert judge([worker(0), worker(1, code=0)]) is None


@pytest.mark.parametrize(
    ("code", "preempted"), [(76, True), (-signal.SIGTERM, True), (-signal.SIGKILL, False)]
)
def test_preemption(code, preempted):
    verdict = judge([worker(0, code=code), worker(1)])
    assert verdict is not None
    assert verdict.preempted == preempted


def test_tracebacks_keep_their_chain_and_their_message():
    catcher = TracebackCatcher()
    lines = [
        *trace("KeyError: 'handled long ago'"),
        "training goes on",
        *trace("KeyError: 'a'"),
        "",
        "During handling of the above exception, another exception occurred:",
        "",
        *trace("ValueError: first line"),
        "second line",
    ]
    for number, line in enumerate(lines):
        catcher.feed(line, float(number))
    assert catcher.error == "ValueError: first line"
    assert catcher.text.startswith("Traceback")
    assert "KeyError: 'a'" in catcher.text
    assert catcher.text.endswith("second line")
    assert "long ago" not in catcher.text
    assert catcher.time == 4.0


BAD = "JobError: train-0.tfrecord record 1 at byte"


def ending(error="E", step=1, code=1, *, preempted=False):
    return Ending(Failure(0, 0.0, "training", step, code, error), preempted)


@pytest.mark.parametrize(
    ("max_restarts", "max_preemptions", "endings", "go_on", "reason"),
    [
        (0, 9, [ending()], False, ""),
        (1, 9, [ending()], True, "restart 1 of 1"),
        (1, 9, [ending(step=1), ending(step=2)], False, "--max_restarts"),
        (9, 9, [ending(), ending()], False, "came again at step 1"),
        (9, 9, [ending(step=None), ending(step=None)], False, "before the first step"),
        (9, 9, [ending(step=1), ending(step=2)], True, "restart 2 of 9"),
        (9, 9, [ending("A"), ending("B")], True, "restart 2 of 9"),
        (9, 9, [ending(), ending(step=2), ending()], True, "restart 3 of 9"),
        (9, 9, [ending(code=-9)] * 2, True, "restart 2 of 9"),
        (9, 9, [ending(code=-9)] * 3, False, "came again"),
        # A damaged record is the same one, at whichever step the readers met it.
        (9, 9, [ending(f"{BAD} 5", step=1), ending(f"{BAD} 5", step=2)], False, "came again"),
        (9, 9, [ending(f"{BAD} 5"), ending(f"{BAD} 7")], True, "restart 2 of 9"),
        # Each attempt has ports of its own: those may be taken again and again.
        (4, 9, [ending("UnknownError: Could not start gRPC server")] * 4, True, "restart 4"),
        (3, 9, [ending("UnknownError: Could not start gRPC server")] * 4, False, "--max_restarts"),
        (0, 2, [ending(preempted=True)] * 2, True, "preemption 2 of 2"),
        (0, 2, [ending(preempted=True)] * 3, False, "--max_preemptions"),
        (1, 2, [ending(preempted=True)] * 2 + [ending()], True, "restart 1 of 1"),
    ],
)
def test_going_on(max_restarts, max_preemptions, endings, go_on, reason):
    decision = decide(RestartPolicy(max_restarts, max_preemptions), endings)
    assert decision.go_on == go_on
    assert reason in decision.reason


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
        # the one that is behind, and the one that is stopped
        ([training(0, steps=[1, 2, 3]), training(1, steps=[1, 2])], 30, (1,)),
        ([training(0, steps=[1, 2], state="T"), training(1, steps=[1, 2])], 30, (0,)),
        # the other has ended well long ago
        ([training(0, steps=[1, 2, 3], state="T"), ended(training(1, steps=[1, 2, 3]))], 30, (0,)),
        # one still speaks: no hang yet
        ([training(0, steps=[1, 2]), training(1, steps=[1, 2, 29])], 30, None),
        # a first step may take long, for it compiles
        ([training(0, steps=[], phases=[("first_step", 0.0)])], 600, None),
        ([training(0, steps=[], phases=[("first_step", 0.0)])], 901, (0,)),
        # an evaluation that took 3 s before
        ([training(0, steps=[], phases=[("evaluation", 0), ("training", 3), ("evaluation", 5)])],
         30, None),
        ([training(0, steps=[], phases=[("evaluation", 0), ("training", 3), ("evaluation", 5)])],
         36, (0,)),
        # a peer that does not come
        ([worker(0, phases=[("rendezvous", 5.0)]), worker(1, phases=[("import", 0.0)])], 34, None),
        ([worker(0, phases=[("rendezvous", 5.0)]), worker(1, phases=[("import", 0.0)])], 36, (1,)),
        ([worker(0, phases=[("rendezvous", 5.0)]), worker(1)], 36, (1,)),
        # all have come, but none gets on
        ([worker(n, phases=[("rendezvous", 5.0)]) for n in range(2)], 36, (0, 1)),
        # an agent that is silent alone; when all are, it is we who were away
        ([heard(worker(0), 100), heard(worker(1), 60)], 100, (1,)),
        ([heard(worker(0), 100), heard(worker(1), 97)], 100, None),
        ([heard(worker(0), 60), heard(worker(1), 60)], 100, None),
        # programs that tell no phases: what they did before they opened a port is no waiting
        ([listens(worker(0), 200.0), worker(1)], 229, None),
        ([listens(worker(0), 200.0), worker(1)], 231, (1,)),
        ([listens(worker(0), 200.0), listens(worker(1), 205.0), worker(2)], 234, None),
        ([listens(worker(0), 200.0), listens(worker(1), 205.0), worker(2)], 236, (2,)),
        # programs that say nothing are left alone
        ([worker(0), worker(1)], 10**6, None),
    ],
)  # fmt: skip
def test_hangs(records, now, culprits):
    finding = find_hang(WATCH, records, now=now)
    assert (finding.workers if finding else None) == culprits


SHORT = WatchPolicy(hang_timeout_s=1)


def looked_at(index, at, state):
    """A worker that was last heard at its fifth step, at 10.0, its agent's look at it at `at`."""
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
        # nobody has looked at worker 1 since it fell silent
        ([(11.5, "S"), (9.95, "S")], 12.0, None),
        # a look at the very end of its step belongs to the step
        ([(11.5, "S"), (10.1, "S")], 12.0, None),
        # an agent that is late by little is on no host that stands still
        ([(11.5, "S"), (10.6, "S")], 11.7, (0, 1)),
        # the agent of worker 1 has been silent for long, the other not
        ([(19.5, "S"), (10.4, "S")], 20.0, (1,)),
    ],
)
def test_short_limits_wait_for_the_agents(looks, now, culprits):
    records = [looked_at(index, at, state) for index, (at, state) in enumerate(looks)]
    finding = find_hang(SHORT, records, now=now)
    assert (finding.workers if finding else None) == culprits


DUMP = """Fatal Python error: Aborted

Thread 0x00007f1 (most recent call first):
  File "/usr/lib/python3.11/threading.py", line 320 in wait

Current thread 0x00007f2 (most recent call first):
  File "/usr/lib/python3.11/queue.py", line 171 in get
  File "{file}", line 12 in fetch
  File "/home/me/train.py", line 30 in <module>

Extension modules: numpy.core._multiarray_umath (total: 1)""".splitlines()


@pytest.mark.parametrize(
    ("file", "place"),
    [
        ("/home/me/data.py", "in user code: /home/me/data.py:12 in fetch"),
        ("/x/site-packages/tensorflow/python/data/ops/iterator_ops.py", "waiting for input"),
        ("/x/site-packages/tensorflow/python/eager/execute.py", "in a TensorFlow call"),
        ("/x/site-packages/keras/src/saving/saving_lib.py", "writing or reading a checkpoint"),
    ],
)
def test_where_a_stack_is(file, place):
    lines = [line.replace("{file}", file) for line in DUMP]
    assert describe_location(lines).startswith(place)
    assert [len(stack) for stack in thread_stacks(lines)] == [1, 3]
    assert describe_location([]) == ""


@pytest.mark.parametrize(
    ("num_workers", "least", "lanes", "counts"),
    [
        (4, 4, 8, (4,)),
        (4, 1, 4, (4, 2, 1)),
        (6, 2, 12, (6, 4, 3, 2)),
        (3, 2, None, (3, 2)),
    ],
)
def test_worker_counts_divide_the_lanes(num_workers, least, lanes, counts):
    assert worker_counts(num_workers, least, num_lanes=lanes) == counts
    assert choose_count(num_workers - 1, counts) == max(counts[1:], default=0)
    assert choose_count(0, counts) == 0


@given(st.lists(st.binary(max_size=30).filter(lambda line: b"\n" not in line)), st.data())
def test_lines_come_whole_however_they_are_cut(lines, data):
    text = b"".join(line + b"\n" for line in lines)
    buffer, seen = LineBuffer(), []
    while text:
        cut = data.draw(st.integers(1, len(text)))
        seen += buffer.feed(text[:cut])
        text = text[cut:]
    assert seen == [line + b"\n" for line in lines]
    assert buffer.flush() == []


def test_losses_are_compared_where_steps_are_run_again():
    check = LossCheck()
    check.take({1: 0.9, 2: 0.8, 3: 0.7}, 0)
    assert check.sentence() == ""
    check.take({1: 0.9, 2: 0.8, 3: 0.7, 4: 0.6}, 2)
    assert check.sentence() == "losses of 1 steps that were run again after a restart: equal"
    check.take({1: 0.9, 2: 0.8, 3: 0.75, 4: 0.6}, 2)
    assert "3 steps" in check.sentence()
    assert "0.05 apart" in check.sentence()
