"""Workers that are forks of one process with TensorFlow imported: contained like others."""

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
    """Starts a job that would run for long; kills what is left of it at the end."""

    def start(*flags):
        place = (f"--shards={digit_shards}", f"--run_dir={tmp_path / 'run'}")
        mark = {"TENFOLD_TEST_FOLDER": str(tmp_path)}
        return start_tenfold("launch", *place, *FLAGS, *flags, stderr=subprocess.STDOUT, **mark)

    yield start
    for process in ours(tmp_path):
        process.kill()


def ours(folder):
    """All living processes of the job."""
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


def fork_server(folder):
    """The process with the forkserver module that is the launcher's own child."""
    (server,) = [
        process
        for process in ours(folder)
        if "tenfold.launcher.worker.forkserver" in process.cmdline()
        and "launch" in parent_words(process)
    ]
    return server


def parent_words(process):
    parent = process.parent()
    return parent.cmdline() if parent else []


def test_nothing_is_left_when_the_launcher_is_killed(job, tmp_path, until):
    process = job("--epochs=1000")
    until(lambda: steps(tmp_path) > 4, 120)
    # The launcher, the server, and per worker an agent, its guard and itself, all its forks.
    assert len(ours(tmp_path)) == 2 + 2 * 3
    process.kill()
    until(lambda: not ours(tmp_path))


def test_the_job_outlives_the_server(job, tmp_path, until):
    """Without the server the next start is an ordinary one; the job still ends well."""
    wait = f"--callback={Path(__file__).with_name('waiting_callback.py')}:UntilTold"
    process = job("--epochs=1", "--max_restarts=1", wait, "--inject=kill:worker=1,step=14")
    until(lambda: steps(tmp_path) > 4, 120)
    os.kill(fork_server(tmp_path).pid, signal.SIGKILL)
    (tmp_path / "run" / "told").touch()
    out, _ = process.communicate(timeout=200)
    assert process.returncode == 0, out[-3000:]
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["restarts"] == 1
    until(lambda: not ours(tmp_path))
