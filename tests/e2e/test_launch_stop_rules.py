"""Early stopping, limits and changed settings of the built-in trainer, through kills."""

import json

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

FLAGS = ("--model=mlp", "--global_batch_size=64", "--steps_per_execution=4")


@pytest.fixture(scope="module")
def launch(tenfold, digit_shards):
    def run(run_dir, *flags, status=0):
        done = tenfold(
            "launch", f"--shards={digit_shards}", f"--run_dir={run_dir}", *FLAGS, *flags
        )
        assert done.status == status, done.err[-3000:]
        return done

    return run


def lines_of(run_dir, kind):
    lines = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["kind"] == kind]


def final_of(run_dir):
    return json.loads((run_dir / "result.json").read_text())["final"]


def test_rules_survive_restarts_and_a_resume_with_other_settings(launch, tmp_path):
    """An accuracy that stands still ends the run, on 3 workers with uneven lanes."""
    run_dir = tmp_path / "run"
    done = launch(
        run_dir, "--num_workers=3", "--epochs=4", "--learning_rate=1e-12", "--validate_every=5",
        "--patience=3", "--monitor=val_accuracy", "--keep_best=val_accuracy",
        "--checkpoint_every=7", "--max_restarts=1", "--inject=kill:worker=1,step=12",
    )  # fmt: skip
    assert "early stopping by val_accuracy, higher is better" in done.err
    # The best is of step 5, before the checkpoint at step 7 from which the run was restarted.
    final = final_of(run_dir)
    assert final["steps"] == 20
    assert "no better val_accuracy in 3 evaluations than" in final["ended_by"]
    assert final["best_model"].endswith("at step 5 (best.keras)")
    assert [line["step"] for line in lines_of(run_dir, "validation")] == [5, 10, 15, 20]
    (unfinished,) = lines_of(run_dir, "epoch")
    receipt = unfinished["receipt"]
    assert (receipt["records"], receipt["of_epoch"], receipt["exact"]) == (1280, 1617, True)
    kept = (run_dir / "best.keras").read_bytes()

    refused = launch(run_dir, "--num_workers=2", "--epochs=3", "--seed=1", status=2)
    assert "--seed=0 or a new --run_dir" in refused.err

    done = launch(
        run_dir, "--num_workers=2", "--epochs=3", "--learning_rate=0.02", "--schedule=linear",
        "--max_steps=30", "--keep_best=val_accuracy", "--checkpoint_every=7", "--max_restarts=1",
        "--inject=kill:worker=0,step=29",
    )  # fmt: skip
    changes = "epochs 3 (was 4), learning_rate 0.02 (was 1e-12), schedule linear (was constant)"
    assert f"resumes with {changes}" in done.err
    assert "the run ends at step 30 by --max_steps=30" in done.err
    assert [line["step"] for line in lines_of(run_dir, "step")] == list(range(1, 31))
    first, second = lines_of(run_dir, "epoch")
    assert (first["receipt"]["records"], first["receipt"]["of_epoch"]) == (1600, 0)
    assert (second["receipt"]["records"], second["receipt"]["of_epoch"]) == (320, 1617)
    assert second["metrics"]["val_accuracy"] > first["metrics"]["val_accuracy"]
    assert (run_dir / "best.keras").read_bytes() != kept
    assert final_of(run_dir)["best_model"].endswith("at step 30 (best.keras)")


def test_max_time_ends_with_a_model(launch, tmp_path):
    run_dir = tmp_path / "run"
    launch(run_dir, "--num_workers=2", "--epochs=100000", "--max_time=3s")
    final = final_of(run_dir)
    assert final["ended_by"] == "--max_time=3.0s"
    assert final["steps"] > 0
    assert (run_dir / "model.keras").is_file()
    *whole, last = lines_of(run_dir, "epoch")
    assert all(line["receipt"]["exact"] for line in (*whole, last))
    assert len(lines_of(run_dir, "step")) == final["steps"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--patience=2", "--monitor=val_score"], "give --monitor=val_score:max or"),
        (["--patience=2", "--monitor=val_auc"], "no figure 'val_auc'"),
        (["--monitor=val_loss"], "--monitor=val_loss needs --patience=N"),
        (["--max_time=soon"], "--max_time=soon: write a time as"),
    ],
)
def test_wrong_rules_end_before_any_worker_starts(launch, tmp_path, flags, message):
    done = launch(tmp_path / "run", "--num_workers=2", *flags, status=2)
    assert message in done.err
