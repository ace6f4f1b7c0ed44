"""The result of a job in words."""

from tenfold.launcher.display.summary import result_text
from tenfold.launcher.job.job_result import Failure, JobResult, Recovery


def test_result_text_of_a_job_with_a_restart(tmp_path):
    failure = Failure(1, 0.0, "training", 40, -9, "killed by SIGKILL")
    result = JobResult(
        state="succeeded",
        exit_codes=(0, 0),
        seconds=12.34,
        final={"epochs": 2, "metrics": {"val_accuracy": 0.98888}, "model": "/x/model.keras"},
        recoveries=(Recovery(failure, False, 2, 3.21),),
    )
    assert result_text(result, tmp_path).splitlines() == [
        "succeeded in 12 s",
        "  epochs: 2",
        "  val accuracy: 0.9889",
        "restart 1: worker 1 at step 40: killed by SIGKILL; next step after 3.2 s",
        f"run directory: {tmp_path}",
        f"logs: {tmp_path / 'logs'}",
    ]
