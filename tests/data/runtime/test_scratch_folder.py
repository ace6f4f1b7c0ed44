"""Temporary folders: those of killed processes are removed, those in use stay."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tenfold.data.runtime.scratch_folder import NEW_FOLDER_S, scratch_folder


def age(folder: Path) -> None:
    old = time.time() - 2 * NEW_FOLDER_S
    os.utime(folder, (old, old))


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_folder_of_killed_process_is_removed(temporary: Path) -> None:
    program = """
import os, signal
from tenfold.data.runtime.scratch_folder import scratch_folder
with scratch_folder() as folder:
    (folder / "spool").write_bytes(b"records")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", program], env={**os.environ, "TMPDIR": str(temporary)})
    (left,) = temporary.iterdir()
    with scratch_folder():  # a young folder may not have its lock yet
        assert left.exists()
    age(left)
    with scratch_folder():
        assert not left.exists()
    assert not list(temporary.iterdir())


def test_folders_in_use_and_of_others_stay(temporary: Path) -> None:
    foreign = temporary / "tenfold-notes"
    foreign.mkdir()
    target = temporary / "target"
    target.mkdir()
    (temporary / "tenfold-scratch-link").symlink_to(target)
    with scratch_folder() as held:
        for folder in (held, foreign, target):
            age(folder)
        with scratch_folder():
            assert held.exists()
    assert foreign.exists()
    assert target.exists()


def test_killed_write_leaves_nothing_after_the_next(tenfold, tmp_path, make_class_folder) -> None:
    source = make_class_folder()
    scratch = tmp_path / "scratch"
    left = scratch / "tenfold-scratch-killed"
    left.mkdir(parents=True)
    age(left)
    flags = (f"--source={source}", f"--output={tmp_path / 'out'}", "--num_workers=1")
    done = tenfold("write", *flags, TMPDIR=str(scratch))
    assert done.status == 0, done.err
    assert not list(scratch.iterdir())
