"""The built-in trainer under injected faults: it recovers, and its losses stay the same."""

import json
import math

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

FLAGS = (
    "--epochs=2",
    "--global_batch_size=64",
    "--steps_per_execution=4",
    "--checkpoint_every=6",
    "--grace=30",
)


@pytest.fixture(scope="module")
def run_job(tenfold, digit_shards, tmp_path_factory):
    def run(name, *flags, status=0):
        run_dir = tmp_path_factory.mktemp("runs") / name
        done = tenfold(
            "launch", f"--shards={digit_shards}", f"--run_dir={run_dir}", *FLAGS, *flags
        )
        assert done.status == status, done.err[-3000:]
        return run_dir, json.loads((run_dir / "result.json").read_text()), done.out

    return run


@pytest.fixture(scope="module")
def undisturbed(run_job):
    """Losses by step of a run without faults."""
    run_dir, _, _ = run_job("undisturbed", "--num_workers=2")
    return losses(run_dir)


def losses(run_dir):
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["kind"] == "step"]
    return {line["step"]: line["loss"] for line in steps}


def assert_alike(run, reference):
    assert list(run) == list(reference)
    assert all(math.isclose(run[step], reference[step], rel_tol=1e-3) for step in reference)


def test_two_kills_and_a_lost_host_keep_the_losses(run_job, undisturbed):
    """2 workers until a kill, 2 until a host is lost, 1 until a kill, then 2 to the end."""
    run_dir, result, out = run_job(
        "faults",
        "--num_workers=2",
        "--min_workers=1",
        "--max_restarts=3",
        "--regrow_after=never",
        "--inject=kill:worker=1,step=9",
        "--inject=lose:worker=0,step=15,restart=1",
        "--inject=kill:worker=0,step=30,restart=2",
    )
    assert [recovery["num_workers"] for recovery in result["recoveries"]] == [2, 1, 2]
    assert all(recovery["seconds"] > 0 for recovery in result["recoveries"])
    assert_alike(losses(run_dir), undisturbed)
    assert "repeated after a restart" in out


def test_stopped_worker_is_found_by_the_time_out_of_the_exchange(run_job):
    _, result, _ = run_job(
        "stopped", "--num_workers=2", "--collective=ring", "--pack_bytes=100kB",
        "--collective_timeout=5", "--hang_timeout=0", "--inject=stop:worker=1,step=9", status=1,
    )  # fmt: skip
    assert result["first_failure"]["worker"] == 1
    (consequence,) = result["consequences"]
    # TensorFlow 2.21 may abort while it cancels the exchange ("Mutex corrupt").
    assert any(text in consequence["error"] for text in ("DeadlineExceededError", "SIGABRT"))


def test_preempted_job_repeats_no_step(run_job, undisturbed):
    """The preempted worker and its peer save a checkpoint together before they stop."""
    # The worker is slowed down too, so that training does not end before the fault.
    faults = [f"--inject={kind}:worker=1,step=9" for kind in ("preempt", "slow")]
    run_dir, result, _ = run_job("preempted", "--num_workers=2", *faults)
    (recovery,) = result["recoveries"]
    assert recovery["preempted"]
    assert recovery["failure"]["exit_code"] == 76
    assert result["notes"] == []
    assert_alike(losses(run_dir), undisturbed)


def test_bad_shard_is_named_and_not_retried_for_ever(run_job):
    _, result, out = run_job(
        "bad", "--num_workers=2", "--max_restarts=5", "--inject=bad_shard:worker=1", status=1
    )
    assert result["restarts"] <= 1
    assert result["first_failure"]["worker"] == 1
    assert "train-" in result["first_failure"]["error"]
    assert "repeated" in out
