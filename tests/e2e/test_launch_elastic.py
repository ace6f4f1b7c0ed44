"""The built-in trainer on simulated hosts that go and come back: records and losses stay."""

import json
import math

import pytest

from tenfold.data.errors import UserError
from tenfold.launcher.backends.backend_registry import load_backend

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

FLAGS = (
    "--model=mlp", "--epochs=2", "--global_batch_size=50", "--steps_per_execution=3",
    "--checkpoint_every=6", "--seed=3",
)  # fmt: skip


@pytest.fixture(scope="module")
def run_job(tenfold, write_digits, tmp_path_factory, read_metrics):
    """Train on the digits in 4 lanes; return the losses by step, the result and the screen."""
    backend = load_backend("netns")
    try:
        with backend.opened(backend.hosts(1)):
            pass
    except UserError as error:
        pytest.skip(str(error))
    shards = tmp_path_factory.mktemp("lanes") / "shards"
    write_digits(shards, "--num_workers=4")

    def run(*flags):
        run_dir = tmp_path_factory.mktemp("elastic") / "run"
        done = tenfold("launch", f"--shards={shards}", f"--run_dir={run_dir}", *FLAGS, *flags)
        assert done.status == 0, done.err[-3000:]
        lines = read_metrics(run_dir)
        epochs = [line for line in lines if line["kind"] == "epoch"]
        assert [line["receipt"]["exact"] for line in epochs] == [True, True]
        losses = {line["step"]: line["loss"] for line in lines if line["kind"] == "step"}
        return losses, json.loads((run_dir / "result.json").read_text()), done.err

    return run


@pytest.fixture(scope="module")
def undisturbed(run_job):
    losses, _, _ = run_job("--num_workers=1")
    return losses


def assert_alike(run, reference):
    assert list(run) == list(reference)
    assert all(math.isclose(run[step], reference[step], rel_tol=1e-3) for step in reference)


def test_lost_host_comes_back(run_job, undisturbed):
    """4 workers, 3 from the newest checkpoint, with 2, 1 and 1 lanes, then 4 again."""
    losses, result, shown = run_job(
        "--backend=netns", "--num_workers=4", "--min_workers=2", "--max_restarts=1",
        "--regrow_after=1s", "--inject=lose:worker=1,step=9",
    )  # fmt: skip
    assert [change["num_workers"] for change in result["resizes"]] == [3, 4]
    assert [change["reason"] for change in result["resizes"]] == [
        "host-1 is gone",
        "host-1 is back",
    ]
    assert result["restarts"] == 1
    assert "host-1 is back: saving a checkpoint to go on with 4 workers" in shown
    assert_alike(losses, undisturbed)


def test_spare_host_replaces_lost_one(run_job, undisturbed):
    """test_host_faults.py shows the same for a host that loses its network."""
    losses, result, shown = run_job(
        "--backend=netns", "--num_workers=3", "--spare_hosts=1", "--max_restarts=1",
        "--inject=lose:worker=1,step=9",
    )  # fmt: skip
    (change,) = result["resizes"]
    assert (change["before"], change["num_workers"]) == (3, 3)
    assert "host-3 takes the place of host-1" in shown
    assert_alike(losses, undisturbed)
