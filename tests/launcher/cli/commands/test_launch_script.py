"""`tenfold.worker()` in a user's own program, and injected faults."""

import json
import re
import subprocess
import sys

import pytest

from tenfold.launcher.cli.jobs.run_status import run_status, status_text
from tenfold.launcher.report_page.page import render_page
from tenfold.launcher.report_page.run_files import read_run

pytestmark = pytest.mark.timeout(240)

LOOP = """
import tenfold
worker = tenfold.worker()
assert worker is tenfold.worker()
assert (worker.index, worker.num_workers, worker.restart) == (index, count, restart)
assert str(worker.run_dir) == run_dir and worker.is_chief == (index == 0)
state = worker.run_dir / f"step-{index}"
step = int(state.read_text() or 0) if state.exists() else 0
limit = 20 if restart >= STRIKES else 5 * (restart + 1)
while step < 20:
    time.sleep(0.03)
    step = min(step + 1, limit)
    state.write_text(str(step))
    worker.report(step=step, total_steps=20, loss=1 / step)
"""


def loop(strikes=0):
    """Return a program of 20 steps.

    The supervisor may be slow to inject a fault: in its first `strikes` starts the program waits
    at step 5, 10, … until the fault has struck.
    """
    return LOOP.replace("STRIKES", str(strikes))


def test_reports_reach_the_supervisor(launch):
    launch.run("--num_workers=2", text=loop())
    assert launch.status == 0, launch.err
    assert "\x1e" not in launch.log(0)


def test_program_outside_a_launch_is_worker_0_of_1():
    program = """
import sys, tenfold
worker = tenfold.worker()
worker.report(step=3)
worker.phase("training")
assert (worker.index, worker.num_workers, worker.is_chief) == (0, 1, True)
assert "tensorflow" not in sys.modules
print("quiet")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("quiet\n", "")


def test_exception_ends_the_worker_at_once(launch):
    """A thread that never ends would keep the process alive, as TensorFlow's teardown does."""
    text = """
    import tenfold, threading
    tenfold.worker()
    threading.Thread(target=time.sleep, args=(1000,)).start()
    if index == 1:
        raise KeyError("the cause")
    """
    launch.run("--num_workers=2", "--grace=0.2", text=text)
    first = launch.result["first_failure"]
    assert (first["worker"], first["exit_code"], first["error"]) == (1, 1, "KeyError: 'the cause'")
    assert 'raise KeyError("the cause")' in first["traceback"]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("kill:worker=1,step=5", "killed by SIGKILL"),
        ("raise:worker=1,step=5", "InjectedError: injected at step 5"),
        ("disk_full:worker=1,step=5", "OSError: [Errno 27] File too large"),
    ],
)
def test_job_recovers_from_an_injected_fault(launch, fault, error):
    flags = ("--num_workers=2", "--max_restarts=1", "--grace=0.2", f"--inject={fault}")
    launch.run(*flags, text=loop(strikes=1))
    assert launch.status == 0, launch.err
    (recovery,) = launch.result["recoveries"]
    assert recovery["failure"]["worker"] == 1
    assert recovery["failure"]["error"] == error
    assert recovery["seconds"] > 0
    assert f"{error}; next step after" in launch.out


def test_job_recovers_from_an_injected_preemption(launch):
    flags = ("--num_workers=2", "--grace=1", "--inject=preempt:worker=0,step=3")
    launch.run(*flags, text=loop(strikes=1))
    assert launch.status == 0, launch.err
    assert [recovery["preempted"] for recovery in launch.result["recoveries"]] == [True]


def test_stopped_worker_is_found_by_its_silence(launch):
    flags = ("--num_workers=2", "--hang_timeout=2", "--inject=stop:worker=1,step=5")
    launch.run(*flags, text=STEADY.replace("STEPS", "10**6"))
    assert launch.status == 1
    assert launch.result["first_failure"]["worker"] == 1
    assert "no progress for" in launch.result["first_failure"]["error"]


def test_worker_stopped_after_the_others_ended_is_found(launch):
    flags = ("--num_workers=2", "--hang_timeout=2", "--inject=stop:worker=1,step=5")
    launch.run(*flags, text=loop("index"))
    assert launch.status == 1
    assert launch.result["first_failure"]["worker"] == 1
    assert launch.result["consequences"] == []


# Workers wait for each other at every step, as collectives do.
STEADY = """
import tenfold
worker = tenfold.worker()
for step in range(1, STEPS):
    mark(f"at-{index}-{step}")
    wait_for(f"at-{1 - index}-{step}", 60)
    worker.report(step=step)
    time.sleep(0.11)
"""


def test_slow_worker_only_slows_the_job(launch):
    text = STEADY.replace("STEPS", "6")
    launch.run("--num_workers=2", "--inject=slow:worker=1,step=3,seconds=0.5", text=text)
    assert launch.status == 0, launch.err
    assert launch.result["seconds"] > 1.4


def test_job_recovers_from_a_taken_port(launch):
    text = """
    import socket
    address = json.loads(os.environ["TF_CONFIG"])["cluster"]["worker"][index]
    socket.create_server(("127.0.0.1", int(address.split(":")[1])))
    """
    launch.run("--num_workers=2", "--max_restarts=1", "--inject=port:worker=1", text=text)
    assert launch.status == 0, launch.err
    assert "Address already in use" in launch.result["recoveries"][0]["failure"]["error"]


def test_job_runs_on_fewer_hosts_while_one_is_away(launch):
    """4 workers; one host is away for two starts: 3 workers, 3 after another crash, then 4."""
    text = """
mark(f"count-{restart}-{index}", str(count))
""" + loop(strikes=3)
    launch.run(
        "--num_workers=4",
        "--min_workers=2",
        "--max_restarts=3",
        "--regrow_after=never",
        "--grace=0.2",
        "--inject=lose:worker=1,step=3,restarts=2",
        "--inject=kill:worker=0,step=8,restart=1",
        "--inject=kill:worker=0,step=12,restart=2",
        text=text,
    )
    assert launch.status == 0, launch.err
    assert [recovery["num_workers"] for recovery in launch.result["recoveries"]] == [3, 3, 4]
    assert len(launch.result["exit_codes"]) == 4
    counts = [(launch.run_dir / f"count-{restart}-0").read_text() for restart in range(4)]
    assert counts == ["4", "3", "3", "4"]
    assert json.loads((launch.run_dir / "job.json").read_text())["num_workers"] == 4


GROWING = """
done = os.path.join(run_dir, "steps")
first = int(open(done).read()) if os.path.exists(done) else 0
stopped = []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
mark(f"count-{restart}-{index}", str(count))
for step in range(first + 1, 1000):
    say("step", "training", step=step)
    if index == 0:
        mark("steps", str(step))
    if stopped or (restart == 2 and step > first + 3):
        break
    time.sleep(0.05)
"""


def test_job_grows_back_when_a_host_answers_again(launch):
    """4 workers, 3 while one host is away, then 4; growing is no restart after a failure."""
    launch.run(
        "--num_workers=4",
        "--min_workers=2",
        "--max_restarts=1",
        "--regrow_after=1s",
        "--inject=lose:worker=1,step=3",
        text=GROWING,
    )
    assert launch.status == 0, launch.err
    counts = [(launch.run_dir / f"count-{restart}-0").read_text() for restart in range(3)]
    assert counts == ["4", "3", "4"]
    assert launch.result["restarts"] == 1
    lost, grown = launch.result["resizes"]
    assert (lost["before"], lost["num_workers"]) == (4, 3)
    assert lost["reason"] == "a slot of localhost is gone"
    assert (grown["before"], grown["num_workers"]) == (3, 4)
    assert grown["reason"] == "a slot of localhost is back"
    assert grown["step"] > lost["step"]
    assert grown["seconds"] > 0
    assert "is back: saving a checkpoint to go on with 4 workers" in launch.err
    assert "4 workers instead of 3: a slot of localhost is back" in launch.err
    assert re.search(r"change 2 at ..:..:.., after step \d+: 4 workers instead of 3", launch.out)
    told = [line for line in launch.history if line["kind"] == "resized"]
    assert [(line["before"], len(line["hosts"])) for line in told] == [(4, 3), (3, 4)]
    run = read_run(launch.run_dir)
    status = run_status(run)
    assert [change.num_workers for change in status.changes] == [3, 4]
    assert ": 4 workers instead of 3: a slot of localhost is back" in status_text(status, now=0)
    assert "Changes of hosts" in render_page(run)
    launch.assert_nothing_left()


def test_failed_growth_does_not_end_the_job(launch):
    """The host that is back answers, but its worker fails: the job goes on without it."""
    text = "if restart == 2 and index == count - 1: sys.exit(3)\n" + GROWING
    flags = ("--num_workers=3", "--min_workers=2", "--max_restarts=1", "--regrow_after=1s")
    fault = "--inject=lose:worker=2,step=3"
    launch.run(*flags, fault, text=text.replace("restart == 2 and step", "restart == 3 and step"))
    assert launch.status == 0, launch.err
    assert [change["num_workers"] for change in launch.result["resizes"]] == [2, 3, 2]
    assert launch.result["restarts"] == 1
    told = "2 workers instead of 3: localhost failed before its first step and is left out"
    assert told in launch.err


def test_job_does_not_grow_where_that_is_turned_off(launch):
    text = GROWING.replace("restart == 2", "restart == 1").replace("+ 3", "+ 60")
    flags = ("--num_workers=2", "--min_workers=1", "--max_restarts=1", "--regrow_after=never")
    launch.run(*flags, "--inject=lose:worker=1,step=3", text=text)
    assert launch.status == 0, launch.err
    assert [change["num_workers"] for change in launch.result["resizes"]] == [1]


def test_too_few_hosts_end_the_job(launch):
    launch.run(
        "--num_workers=2",
        "--min_workers=2",
        "--max_restarts=3",
        "--inject=lose:worker=1,step=3",
        text=loop(strikes=1),
    )
    assert launch.status == 1
    assert "too few hosts" in launch.out


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("kil:worker=1", ["'kil'", "'kill'"]),
        ("kill:workers=1", ["'workers'", "'worker'"]),
        ("kill:worker=-1", ["'-1'"]),
        ("kill:worker=7", ["no worker 7"]),
        ("kill:step=soon", ["'soon'"]),
    ],
)
def test_wrong_fault_is_refused_in_one_line(launch, fault, words):
    launch.run("--num_workers=2", f"--inject={fault}", program=("true",))
    assert launch.status == 2
    assert launch.err.count("\n") == 1
    assert all(word in launch.err for word in words), launch.err
