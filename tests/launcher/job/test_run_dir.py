"""Run directories: their lock and their names."""

import fcntl

import pytest

from tenfold.data.errors import UserError
from tenfold.launcher.job import run_dir as rundir
from tenfold.launcher.job.run_dir import RunDir, default_run_dir


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


def test_default_run_dirs_differ(tmp_path):
    first = default_run_dir("my model/é", parent=tmp_path)
    first.mkdir()
    second = default_run_dir("my model/é", parent=tmp_path)
    assert first != second
    assert first.parent == second.parent == tmp_path
    assert " " not in first.name
