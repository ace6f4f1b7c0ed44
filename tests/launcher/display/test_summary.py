"""The result of a job in words."""

from tenfold.launcher.display.summary import result_text
from tenfold.launcher.job.history.goodput import Goodput
from tenfold.launcher.job.job_result import Failure, JobResult, Recovery


def test_result_text_of_a_job_with_a_restart(tmp_path):
    failure = Failure(1, 0.0, "training", 40, -9, "killed by SIGKILL")
    result = JobResult(
        state="succeeded",
        exit_codes=(0, 0),
        seconds=12.34,
        final={"epochs": 2, "metrics": {"val_accuracy": 0.98888}, "model": "/x/model.keras"},
        recoveries=(Recovery(failure, False, 2, 3.21),),
        goodput=Goodput(
            12.34,
            {"steps": 6.17, "input": 0.04, "start": 2.0, "build": 4.13},
            0.5,
            before_exchange_s=(0.02, 0.009, 0.009),
            slow_worker=0,
        ),
    )
    assert result_text(result, tmp_path).splitlines() == [
        "succeeded in 12 s",
        "  epochs: 2",
        "  val accuracy: 0.9889",
        "  goodput: 50 % of the time in steps that were kept; the rest: build 33 %, start 16 %",
        "worker 0 is slow: 20 ms of each step before the exchange of gradients, the others 9.0 ms "
        "and then wait for it: look at its host and its input",
        "restart 1: worker 1 at step 40: killed by SIGKILL; next step after 3.2 s",
        f"run directory: {tmp_path}",
        f"logs: {tmp_path / 'logs'}",
    ]
