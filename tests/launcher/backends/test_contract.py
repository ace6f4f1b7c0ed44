"""What every back end that runs commands on hosts must do, driven through `tenfold launch`."""

import json
import os
import signal
import sys

import psutil
import pytest

pytestmark = pytest.mark.timeout(180)

HOSTILE = ["", "a b", "it's", '"', "$HOME `id` \\ ;&|<>*?[]{}()!#~", "new\nline", "ä→", "--flag=1"]

# Listens at its address in TF_CONFIG, and connects to all peers.
MEET = """
import socket
config = json.loads(os.environ["TF_CONFIG"])
workers = [worker.rsplit(":", 1) for worker in config["cluster"]["worker"]]
server = socket.create_server((workers[index][0], int(workers[index][1])))
def meet():
    for peer, (host, port) in enumerate(workers):
        end = time.monotonic() + 60
        while peer != index:
            try:
                socket.create_connection((host, int(port)), 5).close()
                break
            except OSError:
                assert time.monotonic() < end, (host, port)
                time.sleep(0.02)
    mark(f"met-{index}")
    for peer in range(count):
        wait_for(f"met-{peer}")
meet()
unbuffered = os.environ["PYTHONUNBUFFERED"]
seen = [config, count, restart, os.getcwd(), sys.argv[1:], unbuffered]
mark(f"seen-{index}", json.dumps(seen))
print("out", index)
print("err", index, file=sys.stderr)
"""


@pytest.fixture
def launch(launch, place):
    launch.prefix = place.prefix
    return launch


def test_arguments_and_environment_reach_workers(launch, place):
    program = (sys.executable, str(launch.program(MEET)), *HOSTILE)
    launch.run(*place.flags, "--num_workers=2", program=program)
    assert launch.status == 0, launch.err
    seen = [json.loads((launch.run_dir / f"seen-{index}").read_text()) for index in range(2)]
    assert [config["task"]["index"] for config, *_ in seen] == [0, 1]
    assert seen[0][0]["cluster"] == seen[1][0]["cluster"]
    for _, *rest in seen:
        assert rest == [2, 0, str(launch.folder), HOSTILE, "1"]
    for index in range(2):
        assert f"out {index}\n" in launch.log(index)
        assert f"err {index}\n" in launch.log(index)
    assert launch.result["exit_codes"] == [0, 0]


def test_first_failure_is_reported(launch, place):
    text = """
    if index == 1:
        raise ValueError("the cause")
    time.sleep(60)
    """
    launch.run(*place.flags, "--num_workers=2", text=text)
    assert launch.status == 1, launch.err
    first = launch.result["first_failure"]
    assert (first["worker"], first["exit_code"]) == (1, 1)
    assert first["error"] == "ValueError: the cause"
    assert "in <module>" in first["traceback"]


def test_killed_worker_is_restarted(launch, place):
    text = """
    if index == 1 and restart == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    if restart == 0:
        time.sleep(60)
    mark(f"again-{index}")
    """
    launch.run(*place.flags, "--num_workers=2", "--max_restarts=1", text=text)
    assert launch.status == 0, launch.err
    (recovery,) = launch.result["recoveries"]
    assert (recovery["failure"]["worker"], recovery["failure"]["exit_code"]) == (1, -9)
    assert {"again-0", "again-1"} <= set(os.listdir(launch.run_dir))


def test_workers_clean_up_when_cancelled(launch, place):
    text = """
    def stop(*_):
        mark(f"tidy-{index}")
        sys.exit(5)
    signal.signal(signal.SIGTERM, stop)
    mark(f"up-{index}", str(os.getpid()))
    time.sleep(60)
    """
    launch.start(*place.flags, "--num_workers=2", text=text)
    launch.wait_for("up-0", "up-1")
    launch.process.send_signal(signal.SIGINT)
    launch.finish()
    assert launch.status == 130, launch.err
    assert launch.result["state"] == "cancelled"
    assert launch.result["exit_codes"] == [5, 5]
    assert {"tidy-0", "tidy-1"} <= set(os.listdir(launch.run_dir))


def test_no_process_outlives_killed_launcher(launch, place, until):
    """Neither the worker nor its child in another session."""
    text = """
    import subprocess
    child = subprocess.Popen(["sleep", "1234"], start_new_session=True)
    mark(f"pids-{index}", json.dumps([os.getpid(), child.pid]))
    time.sleep(60)
    """
    launch.start(*place.flags, "--num_workers=2", text=text)
    launch.wait_for("pids-0", "pids-1")
    files = [launch.run_dir / f"pids-{index}" for index in range(2)]
    until(lambda: all(file.read_text() for file in files))
    pids = [pid for file in files for pid in json.loads(file.read_text())]
    assert all(_is_alive(pid) for pid in pids)
    launch.process.kill()
    launch.finish()
    until(lambda: not any(_is_alive(pid) for pid in pids))
    launch.assert_nothing_left(within_s=60)


def _is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
