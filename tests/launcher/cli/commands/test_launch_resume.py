"""Restarts, preemptions and hangs: real processes, no TensorFlow."""

import os
import signal

import pytest

pytestmark = pytest.mark.timeout(240)


def test_all_workers_restart_together(launch):
    """Worker 1 dies at another step each time; the others restart with it."""
    text = """
    mark(f"ran-{index}-{restart}")
    say("step", "training", step=restart + 1, total_steps=9)
    if index == 1 and restart < 2:
        for other in (0, 2):
            wait_for(f"ran-{other}-{restart}")
        os.kill(os.getpid(), signal.SIGKILL)
    if restart < 2:
        time.sleep(1000)
    """
    launch.run("--num_workers=3", "--max_restarts=2", "--grace=0", text=text)
    assert launch.status == 0, launch.err
    result = launch.result
    assert (result["state"], result["restarts"], result["first_failure"]) == ("succeeded", 2, None)
    recoveries = result["recoveries"]
    assert [recovery["failure"]["worker"] for recovery in recoveries] == [1, 1]
    assert all(recovery["seconds"] > 0 for recovery in recoveries)
    assert all((launch.run_dir / f"ran-{i}-{r}").exists() for i in range(3) for r in range(3))
    assert launch.log(0).count("--- ") == 3
    assert "restart 2: worker 1 at step 2: killed by SIGKILL; next step after" in launch.out
    launch.assert_nothing_left()


def test_restarts_stop_at_the_budget(launch):
    text = """
    say("step", "training", step=restart)
    sys.exit(restart + 3)
    """
    launch.run("--num_workers=1", "--max_restarts=2", text=text)
    assert launch.status == 1
    assert launch.result["restarts"] == 2
    assert launch.result["first_failure"]["exit_code"] == 5
    assert "--max_restarts" in launch.result["reason"]
    assert "--max_restarts" in launch.out


def test_failure_repeated_at_a_step_ends_the_job(launch):
    text = """
    say("step", "training", step=4)
    raise ValueError("bad record 17")
    """
    launch.run("--num_workers=2", "--max_restarts=9", "--grace=0.2", text=text)
    assert launch.status == 1
    assert launch.result["restarts"] == 1
    assert "at step 4" in launch.result["reason"]


def test_preemptions_have_a_budget_of_their_own(launch):
    """Three preemptions use no restarts of the crash budget."""
    text = """
    def leave(*_):
        mark(f"saved-{index}-{restart}")
        os._exit(76)
    signal.signal(signal.SIGTERM, leave)
    if restart < 3:
        if index == 0:
            wait_for(f"ready-{restart}")
            os.kill(os.getpid(), signal.SIGTERM)
        mark(f"ready-{restart}")
        time.sleep(1000)
    """
    launch.run("--num_workers=2", text=text)
    assert launch.status == 0, launch.err
    assert launch.result["restarts"] == 3
    assert all(recovery["preempted"] for recovery in launch.result["recoveries"])
    # The peer got SIGTERM and the time to save too.
    assert all((launch.run_dir / f"saved-1-{restart}").exists() for restart in range(3))
    launch.run_dir.joinpath("result.json").unlink()
    assert launch.run("--num_workers=2", "--max_preemptions=1", text=text).status == 1
    assert "--max_preemptions" in launch.out


def test_cancelled_job_is_not_restarted(launch):
    text = """
    mark(f"up-{index}")
    time.sleep(1000)
    """
    launch.start("--num_workers=2", "--max_restarts=5", "--grace=0.2", text=text)
    launch.wait_for("up-0", "up-1")
    launch.process.send_signal(signal.SIGTERM)
    assert launch.finish().status == 143
    assert launch.result["restarts"] == 0


def test_hang_names_the_worker_in_user_code(launch):
    """Worker 1 sleeps in user code; worker 0 waits for it inside a library."""
    library = launch.folder / "site-packages" / "tensorflow"
    library.mkdir(parents=True)
    (library / "__init__.py").touch()
    (library / "execute.py").write_text("import threading\ndef wait(): threading.Event().wait()\n")
    text = """
    sys.path.insert(0, "site-packages")
    from tensorflow import execute
    def load_the_whole_internet():
        time.sleep(1000)
    say("phase", "training")
    mark(f"training-{index}")
    wait_for(f"training-{1 - index}")
    for step in range(5):
        say("step", "training", step=step)
    execute.wait() if index == 0 else load_the_whole_internet()
    """
    launch.run("--num_workers=2", "--hang_timeout=1", text=text)
    assert launch.status == 1
    first = launch.result["first_failure"]
    assert (first["worker"], first["phase"], first["step"]) == (1, "training", 4), launch.err
    assert "no progress for" in first["error"]
    assert "in user code" in first["error"]
    assert "load_the_whole_internet" in first["error"]
    assert "load_the_whole_internet" in first["traceback"]
    assert "in a TensorFlow call" in launch.result["consequences"][0]["error"]
    launch.assert_nothing_left()


def test_steady_steps_are_not_a_hang(launch):
    text = """
    say("phase", "training")
    for step in range(30):  # together longer than the time-out
        say("step", "training", step=step)
        time.sleep(0.1)
    say("phase", "done")
    """
    assert launch.run("--num_workers=2", "--hang_timeout=2", text=text).status == 0, launch.err


@pytest.mark.parametrize("reports_phases", [True, False])
def test_rendezvous_timeout_names_the_missing_worker(launch, reports_phases):
    """Worker 2 never comes, as phases show or else its closed port."""
    text = f"""
    import socket
    if index != 2:
        mark(f"up-{{index}}")
        wait_for(f"up-{{1 - index}}")
    if {reports_phases} and index != 2:
        say("phase", "rendezvous")
    elif index != 2:
        address = json.loads(os.environ["TF_CONFIG"])["cluster"]["worker"][index]
        server = socket.create_server(("127.0.0.1", int(address.split(":")[1])))
    time.sleep(1000)
    """
    launch.run("--num_workers=3", "--rendezvous_timeout=4", "--grace=0.2", text=text)
    assert launch.status == 1
    first = launch.result["first_failure"]
    assert first["worker"] == 2
    assert "rendezvous" in first["error"]
    assert "worker 2" in first["error"]
    launch.assert_nothing_left()


def test_out_of_memory_kill_is_named(launch):
    """A memory cgroup with a small limit, where this machine permits it."""
    group = make_memory_cgroup(64 << 20)
    if group is None:
        pytest.skip("no memory cgroup can be made here")
    try:
        text = f"""
        if index == 1:
            mark_file = open({str(group / "cgroup.procs")!r}, "w")
            mark_file.write(str(os.getpid()))
            mark_file.close()
            hoard = [bytearray(1 << 20) for _ in range(4096)]
        time.sleep(1000)
        """
        launch.run("--num_workers=2", "--grace=0", text=text)
        assert launch.result["first_failure"]["worker"] == 1
        assert "out-of-memory killer" in launch.result["first_failure"]["error"]
    finally:
        group.rmdir()


def make_memory_cgroup(limit_bytes):
    from pathlib import Path

    for root, name in (
        (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
        (Path("/sys/fs/cgroup"), "memory.max"),
    ):
        group = root / f"tenfold-test-{os.getpid()}"
        try:
            group.mkdir()
            (group / name).write_text(str(limit_bytes))
        except OSError:
            if group.is_dir():
                group.rmdir()
            continue
        return group
    return None
