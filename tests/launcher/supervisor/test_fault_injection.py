"""Injected faults: a kill strikes at its step, and losses of repeated steps are compared."""

import pytest

from tenfold.launcher.supervisor.fault_injection import LossCheck

pytestmark = pytest.mark.timeout(120)

PROGRAM = """
import tenfold
worker = tenfold.worker()
for step in range(1, 5):
    worker.report(step=step, total_steps=4)
mark(f"ended-{restart}-{index}")
"""


@pytest.mark.parametrize("fault", ["kill", "lose"])
def test_kill_at_the_last_step_strikes(launch, fault):
    flags = ("--num_workers=2", "--min_workers=1", "--max_restarts=1")
    launch.run(*flags, f"--inject={fault}:worker=1,step=4", text=PROGRAM)
    assert launch.status == 0, launch.err
    (recovery,) = launch.result["recoveries"]
    assert (recovery["failure"]["worker"], recovery["failure"]["step"]) == (1, 4)
    assert (launch.run_dir / "ended-1-0").exists()
    assert not (launch.run_dir / "ended-0-1").exists()


def test_losses_of_repeated_steps_are_compared():
    check = LossCheck()
    check.take({1: 0.9, 2: 0.8, 3: 0.7}, 0)
    assert check.sentence() == ""
    check.take({1: 0.9, 2: 0.8, 3: 0.7, 4: 0.6}, 2)
    assert check.sentence() == "losses of 1 step repeated after a restart: equal"
    check.take({1: 0.9, 2: 0.8, 3: 0.75, 4: 0.6}, 2)
    assert "3 steps" in check.sentence()
    assert "0.05 apart" in check.sentence()
