"""A user's own program under `tenfold launch`: real processes, no TensorFlow."""

import json
import os
import signal
import socket
import sys

import psutil
import pytest

pytestmark = pytest.mark.timeout(240)


def test_every_worker_gets_its_task_index_and_cluster(launch):
    text = """
    config = json.loads(os.environ["TF_CONFIG"])
    mark(f"place-{index}", json.dumps([config, count, restart, os.getcwd()]))
    print("hello from", index)
    """
    launch.run("--num_workers=3", text=text)
    assert launch.status == 0, launch.err
    places = [json.loads((launch.run_dir / f"place-{index}").read_text()) for index in range(3)]
    clusters = [config["cluster"] for config, *_ in places]
    assert clusters[0] == clusters[1] == clusters[2]
    assert len(set(clusters[0]["worker"])) == 3
    assert [config["task"] for config, *_ in places] == [
        {"type": "worker", "index": index} for index in range(3)
    ]
    assert all(rest == [3, 0, str(launch.folder)] for _, *rest in places)
    assert "[worker 2] hello from 2" in launch.err
    assert "hello from 1" in launch.log(1)
    assert launch.result["state"] == "succeeded"
    assert launch.result["exit_codes"] == [0, 0, 0]
    assert launch.result["first_failure"] is None
    assert (
        json.loads((launch.run_dir / "job.json").read_text())["workers"] == clusters[0]["worker"]
    )
    launch.assert_nothing_left()


def test_format_json_prints_the_result(launch):
    launch.run("--num_workers=1", "--format=json", text="pass")
    assert json.loads(launch.out) == launch.result


def test_first_failure_has_its_own_traceback(launch):
    """Worker 1 is the cause; worker 0 prints more, and worker 2 exits before it."""
    text = """
    if index == 1:
        say("step", "training", step=7)
        mark("dying")
        raise ValueError("the cause")
    wait_for("dying")
    if index == 0:
        for number in range(200):
            print("ERROR: everything is on fire", file=sys.stderr)
        sys.stderr.write("Traceback (most recent call last):\\n  File x\\n"
                         "UnavailableError: Connection reset by peer\\n")
        os._exit(1)
    os._exit(75)
    """
    launch.run("--num_workers=3", text=text)
    assert launch.status == 1
    first = launch.result["first_failure"]
    assert (first["worker"], first["exit_code"], first["step"]) == (1, 1, 7)
    assert first["error"] == "ValueError: the cause"
    assert 'raise ValueError("the cause")' in first["traceback"]
    assert {failure["worker"] for failure in launch.result["consequences"]} <= {0, 2}
    assert "first failure: worker 1" in launch.out
    assert "ValueError: the cause" in launch.out
    launch.assert_nothing_left()


@pytest.mark.parametrize(
    ("death", "error", "code"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "killed by SIGKILL", -9),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "killed by SIGSEGV", -11),
        ("os._exit(3)", "exited with 3", 3),
    ],
)
def test_silent_death_is_the_cause(launch, death, error, code):
    """The peers blame the connection; the worker without any output is the cause."""
    text = f"""
    if index == 2:
        mark("dying")
        {death}
    wait_for("dying")
    time.sleep(0.1)
    raise ConnectionError("Connection reset by peer")
    """
    launch.run("--num_workers=3", text=text)
    assert launch.status == 1
    first = launch.result["first_failure"]
    assert (first["worker"], first["exit_code"], first["error"]) == (2, code, error)


def test_early_exit_with_0_is_the_cause(launch):
    text = """
    say("phase", "training")
    if index == 1:
        mark("leaving")
        sys.exit(0)
    wait_for("leaving")
    time.sleep(0.2)
    print("UnavailableError: Socket closed", file=sys.stderr, flush=True)
    os._exit(1)
    """
    launch.run("--num_workers=2", text=text)
    assert launch.status == 1
    assert launch.result["first_failure"]["worker"] == 1
    assert "before it was done" in launch.result["first_failure"]["error"]


def test_stopped_worker_is_the_cause(launch):
    text = """
    if index == 1:
        mark("stopping")
        os.kill(os.getpid(), signal.SIGSTOP)
    wait_for("stopping")
    time.sleep(2.5)  # agents report the state of workers once a second
    sys.exit("UnavailableError: heartbeat timeout")
    """
    launch.run("--num_workers=2", text=text)
    assert launch.result["first_failure"]["worker"] == 1
    assert "SIGSTOP" in launch.result["first_failure"]["error"]
    launch.assert_nothing_left()


def test_worker_that_ignores_sigterm_is_killed(launch):
    """Workers that ignore SIGTERM, as TensorFlow does, are killed after the grace time."""
    text = """
    signal.signal(signal.SIGTERM, lambda *_: print("no", flush=True))
    mark(f"up-{index}")
    while index == 1 or not os.path.exists(os.path.join(run_dir, "up-1")):
        time.sleep(0.01)
    os._exit(9)
    """
    launch.run("--num_workers=2", text=text)
    result = launch.result
    assert result["first_failure"]["worker"] == 0
    assert result["exit_codes"] == [9, -9]
    # The verdict did not wait for the end of worker 1.
    history = launch.history
    verdict = next(at for at, line in enumerate(history) if "worker 0 failed" in str(line))
    exits = [line["worker"] for line in history[verdict:] if line["kind"] == "exit"]
    assert exits == [1]
    assert "no\n" in launch.log(1)
    launch.assert_nothing_left()


FAMILY = """
import subprocess
subprocess.Popen(["sleep", "1000"])
subprocess.Popen(["sleep", "1000"], start_new_session=True)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
mark(f"up-{index}", str(os.getpid()))
time.sleep(1000)
"""


def worker_and_agent(launch, index):
    worker = psutil.Process(int((launch.run_dir / f"up-{index}").read_text()))
    return worker, worker.parent()


@pytest.mark.parametrize("victim", ["supervisor", "agent", "worker"])
def test_no_orphans_whichever_process_dies(launch, victim):
    """Each worker has a child in its session and one in another."""
    launch.start("--num_workers=2", "--grace=0.5", text=FAMILY)
    launch.wait_for("up-0", "up-1")
    # The supervisor and the server that forks the agents, and per worker: the guard, the agent,
    # the worker and its two children.
    assert len(launch.processes()) == 2 + 2 * 5
    worker, agent = worker_and_agent(launch, 1)
    target = {"supervisor": launch.process.pid, "agent": agent.pid, "worker": worker.pid}[victim]
    os.kill(target, signal.SIGKILL)
    launch.finish()
    launch.assert_nothing_left()
    if victim != "supervisor":
        assert launch.status == 1
        assert launch.result["first_failure"]["worker"] == 1


@pytest.mark.parametrize("apart", [False, True], ids=["at once", "one by one"])
@pytest.mark.parametrize("second", ["agent", "guard"])
def test_no_orphans_when_two_processes_die_at_once(launch, second, apart):
    """The supervisor, and the agent or its guard: neither can react to the death of the other."""
    launch.start("--num_workers=1", "--grace=0.5", text=FAMILY)
    launch.wait_for("up-0")
    assert len(launch.processes()) == 2 + 5
    agent = worker_and_agent(launch, 0)[1]
    victims = [launch.process.pid, {"agent": agent, "guard": agent.parent()}[second].pid]
    for victim in victims:
        os.kill(victim, signal.SIGSTOP)
    os.kill(victims[0], signal.SIGKILL)
    if apart:
        launch.process.wait()
    os.kill(victims[1], signal.SIGKILL)
    launch.finish()
    assert launch.status == -signal.SIGKILL
    launch.assert_nothing_left()


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_signal_cancels_the_job(launch, number, status):
    launch.start("--num_workers=2", "--grace=0.3", text=FAMILY)
    launch.wait_for("up-0", "up-1")
    launch.process.send_signal(number)
    launch.finish()
    assert launch.status == status
    assert launch.result["state"] == "cancelled"
    assert launch.result["first_failure"] is None
    launch.assert_nothing_left()


def test_second_signal_kills_at_once(launch):
    launch.start("--num_workers=2", "--grace=600", text=FAMILY)
    launch.wait_for("up-0", "up-1")
    launch.process.send_signal(signal.SIGINT)
    while "interrupt again" not in launch.process.stderr.readline():
        pass
    launch.process.send_signal(signal.SIGINT)
    assert launch.finish().status == 130
    launch.assert_nothing_left()


def test_processes_of_finished_workers_are_killed(launch):
    text = """
    import subprocess
    subprocess.Popen(["sleep", "1000"], start_new_session=True)
    """
    assert launch.run("--num_workers=2", text=text).status == 0
    assert launch.processes() == []


def test_output_of_any_bytes_reaches_the_log(launch):
    text = r"""
    write = sys.stdout.buffer.write
    write(b"\xff\xfe bytes\n" + b"x" * 3_000_000 + b"\n\x1enot json\n\x1e[1]\n")
    write(b'\x1e{"kind":"step","worker":0,"phase":"","data":[]}\n')
    write(b'\x1e{"kind":"exit","worker":0,"phase":""}\n')
    write(b"no newline at the end")
    """
    launch.run("--num_workers=1", text=text)
    assert launch.status == 0, launch.err[-500:]
    assert "� bytes" in launch.log(0)
    assert launch.log(0).count("x") >= 3_000_000
    assert '{"kind":"exit","worker":0,"phase":""}' in launch.log(0)  # malformed, so log text
    assert launch.log(0).endswith("no newline at the end\n")


def test_dry_run_starts_nothing(launch):
    launch.run("--num_workers=2", "--dry_run", text="mark('ran')")
    assert launch.status == 0, launch.err
    assert launch.out.count("TF_CONFIG=") == 2
    assert "program.py" in launch.out
    assert not launch.run_dir.exists()


def refusal(launch):
    """Return the line that refuses wrong input, before anything was written."""
    assert launch.status == 2, launch.err
    assert launch.err.count("\n") == 1
    assert "Traceback" not in launch.err
    assert not (launch.run_dir / "job.json").exists()
    return launch.err


def test_taken_port_is_refused(launch):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        launch.run("--num_workers=1", f"--port={port}", text="pass")
    message = refusal(launch)
    assert all(word in message for word in (f"port {port}", f"pid {os.getpid()}", "--port")), (
        message
    )


@pytest.mark.parametrize(
    ("flags", "program", "words"),
    [
        ([], ("no-such-program",), ["no-such-program"]),
        ([], (sys.executable, "no_such.py"), ["no_such.py"]),
        ([], (), ["--shards"]),
        (["--shards=nowhere"], (), ["nowhere", "manifest"]),
        (["--backend=locale"], ("true",), ["locale", "'local'"]),
        (["--num_workers=0"], ("true",), ["num_workers"]),
        (["--port=65535", "--num_workers=2"], ("true",), ["65536"]),
        (["--epochs=3"], ("true",), ["--epochs"]),
        (["--max_restart=3"], ("true",), ["--max_restarts"]),
    ],
)
def test_wrong_input_is_refused_in_one_line(launch, flags, program, words):
    message = refusal(launch.run(*flags, program=program))
    assert all(word in message for word in words), message


def test_run_dir_of_a_successful_job_is_refused(launch):
    (launch.folder / "run").mkdir()
    (launch.folder / "run" / "thesis.txt").write_text("x")
    assert "other files" in refusal(launch.run("--num_workers=1", text="pass"))
    (launch.folder / "run" / "thesis.txt").unlink()
    assert launch.run("--num_workers=1", text="sys.exit(1)").status == 1
    assert launch.run("--num_workers=1", text="pass").status == 0  # a failed job may be resumed
    launch.run("--num_workers=1", text="pass")
    assert launch.status == 2
    assert "succeeded" in launch.err


def test_run_dir_in_use_is_refused(launch):
    launch.start("--num_workers=1", "--grace=0.3", text=FAMILY)
    launch.wait_for("up-0")
    first = launch.process
    launch.run("--num_workers=1", text="pass")
    assert launch.status == 2
    assert "in use" in launch.err
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=60)
