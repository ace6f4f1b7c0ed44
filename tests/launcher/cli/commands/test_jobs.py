"""`status`, `logs`, `cancel` and `list`: jobs after their launch."""

import json
import time

import pytest

from tenfold.launcher.cli.main import main
from tenfold.launcher.job.history.history_line import (
    HistoryLine,
    LaunchBegun,
    Note,
    StepProgress,
    merge_history,
)
from tenfold.launcher.job.job_spec import SubmittedJob

pytestmark = pytest.mark.timeout(120)

WAITING = """
print("line one", flush=True)
print("line two of", index, flush=True)
say("step", "training", step=7, total_steps=20, loss=0.25, records_per_s=1500.0)
mark(f"up-{index}")
time.sleep(100)
"""


def said(capsys: pytest.CaptureFixture[str], *argv: str, status: int = 0) -> str:
    """Run a command in this process; return what it prints."""
    assert main(list(map(str, argv))) == status
    out, err = capsys.readouterr()
    return out if status == 0 else err


def test_running_job_is_shown_followed_and_cancelled(launch, capsys, start_tenfold):
    launch.start("--num_workers=2", text=WAITING)
    launch.wait_for("up-0", "up-1", "history.jsonl")
    follower = start_tenfold("logs", str(launch.run_dir), "--follow", "--worker=1")
    end = time.monotonic() + 90
    while (text := said(capsys, "status", launch.run_dir)).count("step 7/20") < 2:
        assert time.monotonic() < end, text
        time.sleep(0.05)
    assert text.startswith("running for ")
    assert "worker 1: training, step 7/20, loss 0.25, 1,500 records/s" in text
    status = json.loads(said(capsys, "status", launch.run_dir, "--format=json"))
    assert (status["state"], status["step"], status["num_workers"]) == ("running", 7, 2)
    (row,) = json.loads(said(capsys, "list", launch.folder, "--format=json"))
    assert row["run_dir"] == str(launch.run_dir)

    out = said(capsys, "cancel", launch.run_dir)
    assert out == "asked the launcher to stop\nthe job has ended: cancelled\n"
    launch.finish()
    assert launch.result["state"] == "cancelled"
    assert not (launch.run_dir / "cancel.json").exists()
    followed, _ = follower.communicate(timeout=90)
    assert followed.splitlines()[-2:] == ["line one", "line two of 1"]

    assert said(capsys, "status", launch.run_dir).startswith("cancelled after ")
    logs = said(capsys, "logs", launch.run_dir, "--lines=1")
    assert logs == "[worker 0] line two of 0\n[worker 1] line two of 1\n"
    assert said(capsys, "logs", launch.run_dir, "--worker=0", "--lines=1") == "line two of 0\n"
    table = said(capsys, "list", launch.folder).splitlines()
    assert table[0].split()[:3] == ["run", "directory", "state"]
    assert "cancelled" in table[1]
    err = said(capsys, "cancel", launch.run_dir, status=2)
    assert "no launch is running in" in err
    err = said(capsys, "logs", launch.run_dir, "--worker=5", status=2)
    assert "there is no log of worker 5" in err


@pytest.mark.parametrize("command", ["status", "logs", "cancel"])
def test_folder_without_a_job_is_refused(command, tmp_path, capsys):
    err = said(capsys, command, tmp_path, status=2)
    assert str(tmp_path) in err
    assert err.count("\n") == 1
    assert "give one run directory" in said(capsys, command, status=2)


def test_list_survives_a_damaged_run_directory(tmp_path, capsys):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "a" / "job.json").write_text("{")
    assert "unreadable" in said(capsys, "list", tmp_path)
    assert said(capsys, "list", tmp_path / "b").startswith("there are no run directories in")


# Answers as kubectl does, and notes how it was called.
KUBECTL = """#!/bin/sh
echo "$@" >> {folder}/called
case "$1" in
apply) cat > /dev/null; echo "job.batch/run created" ;;
get) echo '{{"status": {{"active": 2, "failed": 1}}}}' ;;
delete) echo 'job.batch "run" deleted' ;;
esac
"""


def test_job_on_kubernetes_is_shown_and_deleted(tmp_path, capsys, add_command):
    add_command("kubectl", KUBECTL.format(folder=tmp_path))
    run_dir = tmp_path / "run"  # as on a volume that this machine mounts too
    flags = ["--backend=kubernetes", "--image=x", "--namespace=ml", f"--run_dir={run_dir}"]
    said(capsys, "launch", *flags, "--num_workers=2", "--", "true")
    status = said(capsys, "status", run_dir)
    assert "kubernetes job run: pods: 2 active, 0 succeeded, 1 failed" in status
    assert "submitted" in said(capsys, "list", tmp_path)
    assert said(capsys, "cancel", run_dir) == 'job.batch "run" deleted\n'
    called = (tmp_path / "called").read_text().splitlines()
    assert called[1] == "get job run --namespace ml --output=json"
    assert called[-1] == "delete job run --namespace ml --wait=false"


def test_unknown_platform_does_not_hide_the_status(tmp_path, capsys):
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (run_dir / "submission.json").write_bytes(SubmittedJob("nowhere", "7").to_json())
    assert "nowhere job 7: unknown (unknown back end" in said(capsys, "status", run_dir)


def test_members_history_follows_launches_not_clocks():
    """The second member's clock is an hour behind; it missed the first launch."""

    def step(time: float, worker: int) -> HistoryLine:
        return HistoryLine(time, StepProgress(1), worker, "training")

    def begun(time: float) -> HistoryLine:
        return HistoryLine(time, LaunchBegun(2))

    chief = [begun(1.0), step(2.0, 0), begun(10.0), step(12.0, 0), HistoryLine(13.0, Note("end"))]
    member = [begun(-3590.0), step(-3588.5, 1)]
    merged = merge_history(chief, member)
    assert [line.time for line in merged] == [1.0, 2.0, 10.0, -3588.5, 12.0, 13.0]
