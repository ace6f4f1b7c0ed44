"""Decisions about restarts, as a table."""

import pytest

from tenfold.launcher.job.job_result import Failure
from tenfold.launcher.supervisor.restarts import Ending, RestartPolicy, decide

BAD = "JobError: train-0.tfrecord record 1 at byte"


def ending(error="E", step=1, code=1, *, preempted=False):
    return Ending(Failure(0, 0.0, "training", step, code, error), preempted)


@pytest.mark.parametrize(
    ("max_restarts", "max_preemptions", "endings", "restarts", "reason"),
    [
        (0, 9, [ending()], False, ""),
        (1, 9, [ending()], True, "restart 1 of 1"),
        (1, 9, [ending(step=1), ending(step=2)], False, "--max_restarts"),
        (9, 9, [ending(), ending()], False, "repeated at step 1"),
        (9, 9, [ending(step=None), ending(step=None)], False, "before the first step"),
        (9, 9, [ending(step=1), ending(step=2)], True, "restart 2 of 9"),
        (9, 9, [ending("A"), ending("B")], True, "restart 2 of 9"),
        (9, 9, [ending(), ending(step=2), ending()], True, "restart 3 of 9"),
        (9, 9, [ending(code=-9)] * 2, True, "restart 2 of 9"),
        (9, 9, [ending(code=-9)] * 3, False, "repeated"),
        # A damaged record is the same failure, at whichever step it is read.
        (9, 9, [ending(f"{BAD} 5", step=1), ending(f"{BAD} 5", step=2)], False, "repeated"),
        (9, 9, [ending(f"{BAD} 5"), ending(f"{BAD} 7")], True, "restart 2 of 9"),
        # The same values come again, whether or not the exit is known yet.
        (9, 9, [ending(code=77)], False, "not be finite"),
        (9, 9, [ending("NotFiniteError: loss", code=None)], False, "not be finite"),
        # Each attempt has new ports, so a taken port may repeat.
        (4, 9, [ending("UnknownError: Could not start gRPC server")] * 4, True, "restart 4"),
        (3, 9, [ending("UnknownError: Could not start gRPC server")] * 4, False, "--max_restarts"),
        (0, 2, [ending(preempted=True)] * 2, True, "preemption 2 of 2"),
        (0, 2, [ending(preempted=True)] * 3, False, "--max_preemptions"),
        (1, 2, [ending(preempted=True)] * 2 + [ending()], True, "restart 1 of 1"),
    ],
)
def test_restart_decisions(max_restarts, max_preemptions, endings, restarts, reason):
    decision = decide(RestartPolicy(max_restarts, max_preemptions), endings)
    assert decision.restart == restarts
    assert reason in decision.reason
