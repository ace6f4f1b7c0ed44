"""Run directories: their lock and their names."""

import errno
import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from tenfold.data.errors import UserError
from tenfold.launcher.display.history import HistoryView
from tenfold.launcher.display.worker_logs import WorkerLogs
from tenfold.launcher.job import run_dir as rundir
from tenfold.launcher.job.job_result import Failure, JobResult
from tenfold.launcher.job.run_dir import RunDir


def test_held_run_dir_is_locked(tmp_path):
    held = RunDir(tmp_path / "a")
    with pytest.raises(UserError, match="in use"):
        RunDir(tmp_path / "a")
    held.close()
    RunDir(tmp_path / "a").close()


def test_is_locked_does_not_stop_a_launch(tmp_path, monkeypatch):
    with (tmp_path / "lock").open("a") as look:
        fcntl.flock(look, fcntl.LOCK_SH)  # as `is_locked` does
        monkeypatch.setattr(rundir.time, "sleep", lambda _: look.close())
        held = RunDir(tmp_path)
    assert rundir.is_locked(tmp_path)
    held.close()


def test_run_dir_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="--run_dir"):
        RunDir(tmp_path / "file" / "run")


@pytest.mark.parametrize(
    ("final", "epochs", "words"),
    [
        ({"epochs": 2}, 3, ""),
        ({"epochs": 2}, 2, "--epochs above 2 to train on, or a new --run_dir"),
        ({"epochs": 2}, None, "succeeded: give a new --run_dir"),
        ({}, 3, "succeeded: give a new --run_dir"),
    ],
)
def test_training_that_succeeded_continues_with_more_epochs(tmp_path, final, epochs, words):
    held = RunDir(tmp_path)
    held.write_result(JobResult("succeeded", (0,), final=final))
    held.close()
    (tmp_path / "checkpoints").mkdir()
    checkpoint = tmp_path / "checkpoints" / "checkpoint-00002-00000000.npz"
    checkpoint.touch()
    if not words:
        RunDir(tmp_path, epochs=epochs).close()
        checkpoint.unlink()  # from the beginning it would overwrite the finished run
        words = "--epochs above 2"
    with pytest.raises(UserError, match=words):
        RunDir(tmp_path, epochs=epochs)


def test_default_run_dirs_differ(tmp_path):
    show = (
        "from pathlib import Path; from tenfold.launcher.job.run_dir import default_run_dir\n"
        "found = [default_run_dir('my model/é', parent=Path('runs')) for _ in range(3)]\n"
        "assert all(path.is_dir() for path in found); (found[0] / 'kept').touch()\n"
        "print(*found, sep='\\n')"
    )
    command = [sys.executable, "-c", show]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    found = done.stdout.split()
    assert len(set(found)) == 3
    assert all(Path(path).parent == Path("runs") for path in found)
    # Those that stay empty are removed when the process ends.
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [Path(found[0]).name]


def test_result_fits_on_a_full_disk(tmp_path, monkeypatch):
    """It takes the room reserved at the start, without the consequences."""

    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    first, other = (Failure(index, 0.0, "", None, 1, "ValueError: no") for index in range(2))
    held = RunDir(tmp_path)
    monkeypatch.setattr(rundir, "replace_file", refuse)
    held.write_result(JobResult("failed", (1, 1), first_failure=first, consequences=(other,)))
    held.close()
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["first_failure"]["error"] == "ValueError: no"
    assert result["consequences"] == []
    assert {path.name for path in tmp_path.iterdir()} == {"lock", "result.json"}


@pytest.mark.parametrize("target", ["victim", "missing"])
@pytest.mark.parametrize(
    "name", ["lock", "job.json", "history.jsonl", "metrics.jsonl", "model.keras", "logs"]
)
def test_planted_symlinks_are_refused(tmp_path, name, target):
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (run_dir / "job.json").touch()
    (run_dir / name).unlink(missing_ok=True)
    (run_dir / name).symlink_to(tmp_path / target)
    (run_dir / "lock").touch() if name != "lock" else None
    message = rf"holds the symbolic link '{name}' of user \d+.*: remove it, or give another"
    with pytest.raises(UserError, match=message):
        RunDir(run_dir)
    assert victim.read_bytes() == b"precious"
    assert not (tmp_path / "missing").exists()


def test_symlinked_folder_must_be_of_the_user(tmp_path, monkeypatch):
    (tmp_path / "large").mkdir()
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (run_dir / "checkpoints").symlink_to(tmp_path / "large")
    (run_dir / "lock").touch()
    RunDir(run_dir).close()
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    with pytest.raises(UserError, match=f"symbolic link 'checkpoints' of user {user}"):
        RunDir(run_dir)


def test_files_are_opened_without_following_links(tmp_path):
    """A link that appears after the check at the start."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / ".reserve").symlink_to(victim)
    (tmp_path / "lock").touch()
    RunDir(tmp_path).close()
    for name in ("worker-0.log", "history.jsonl"):
        (tmp_path / name).symlink_to(victim)
    with pytest.raises(UserError, match=r"worker-0.log' is a symbolic link"):
        WorkerLogs(tmp_path, range(1))
    with pytest.raises(UserError, match=r"history.jsonl' is a symbolic link"):
        HistoryView(cast(Any, None), tmp_path / "history.jsonl", hosts=["a"])
    assert victim.read_bytes() == b"precious"
