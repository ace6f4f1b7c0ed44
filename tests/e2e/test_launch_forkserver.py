"""Workers forked from a process that has imported TensorFlow, and their containment."""

import json
import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

FLAGS = (
    "--num_workers=2",
    "--global_batch_size=64",
    "--steps_per_execution=2",
    "--checkpoint_every=4",
)


@pytest.fixture
def job(start_tenfold, digit_shards, tmp_path):
    """Start a long job; kill its remaining processes at the end."""

    def start(*flags):
        place = (f"--shards={digit_shards}", f"--run_dir={tmp_path / 'run'}")
        mark = {"TENFOLD_TEST_FOLDER": str(tmp_path)}
        return start_tenfold("launch", *place, *FLAGS, *flags, stderr=subprocess.STDOUT, **mark)

    yield start
    for process in ours(tmp_path):
        process.kill()


def ours(folder):
    """Return all living processes of the job."""
    found = []
    for process in psutil.process_iter():
        try:
            mark = process.environ().get("TENFOLD_TEST_FOLDER")
            if mark == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            pass
    return found


def steps(folder):
    path = folder / "run" / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def fork_servers(folder):
    """Return the children of the launcher that run the forkserver module."""
    return [
        process
        for process in ours(folder)
        if "tenfold.launcher.worker.forkserver" in process.cmdline()
        and "launch" in parent_words(process)
    ]


def is_importing(process):
    return any("libtensorflow" in entry.path for entry in process.memory_maps())


def has_ended(process):
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def parent_words(process):
    parent = process.parent()
    return parent.cmdline() if parent else []


def test_killed_launcher_leaves_no_process(job, tmp_path, until):
    process = job("--epochs=1000")
    until(lambda: steps(tmp_path) > 4, 120)
    # The launcher and the fork server; per worker its agent, the guard of the agent and itself.
    assert len(ours(tmp_path)) == 2 + 2 * 3
    process.kill()
    until(lambda: not ours(tmp_path))


def test_launcher_killed_during_import_leaves_no_process(job, tmp_path, until):
    process = job("--epochs=1")
    until(lambda: any(map(is_importing, fork_servers(tmp_path))), 120)
    (server,) = fork_servers(tmp_path)
    server.suspend()  # the import never ends: only the death of the launcher can end the server
    try:
        process.kill()
        until(lambda: has_ended(server))
        assert not ours(tmp_path)
    finally:
        if not has_ended(server):
            server.kill()


def test_job_survives_death_of_the_fork_server(job, tmp_path, until):
    """The next start is an ordinary start without a fork server, and the job succeeds."""
    wait = f"--callback={Path(__file__).with_name('waiting_callback.py')}:WaitForFile"
    process = job("--epochs=1", "--max_restarts=1", wait, "--inject=kill:worker=1,step=14")
    until(lambda: steps(tmp_path) > 4, 120)
    os.kill(fork_servers(tmp_path)[0].pid, signal.SIGKILL)
    (tmp_path / "run" / "go_on").touch()
    out, _ = process.communicate(timeout=200)
    assert process.returncode == 0, out[-3000:]
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["restarts"] == 1
    until(lambda: not ours(tmp_path))
