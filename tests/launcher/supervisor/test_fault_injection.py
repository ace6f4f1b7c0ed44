"""A worker that is to be killed at a step does not get beyond it."""

import pytest

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
