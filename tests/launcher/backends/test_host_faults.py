"""Simulated hosts that fail on purpose while a job runs on them."""

import psutil
import pytest

pytestmark = pytest.mark.timeout(120)

# Workers that send each other a message ten times a second, and die after a number of missing
# messages. They count messages, not seconds: a stalled machine must not look like a lost host.
PINGS = """
import math, socket
config = json.loads(os.environ["TF_CONFIG"])
places = [worker.rsplit(":", 1) for worker in config["cluster"]["worker"]]
peer = (places[index - 1][0], int(places[index - 1][1]))
box = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
box.bind((places[index][0], int(places[index][1])))
box.settimeout(0.1)
missed = -math.inf
for step in range(1, STEPS + 1):
    missed += 1
    try:
        box.sendto(b"x", peer)
        box.recv(9)
        missed = 0
    except OSError:
        pass
    if missed > PATIENCE:
        print("ConnectionError: heartbeat timeout", flush=True)
        os._exit(1)  # at once: the view omits a last line that the exit follows
    say("step", "training", step=step)
    time.sleep(0.1)
"""


def pings(*, steps, patience):
    return PINGS.replace("STEPS", str(steps)).replace("PATIENCE", str(patience))


@pytest.mark.parametrize(
    ("fault", "patience", "words"),
    [
        ("unplug", 25, "host lost the network: no link on eth0"),
        ("freeze", 40, "host unresponsive: no heartbeat for"),
    ],
)
def test_failed_host_is_named_and_job_continues(launch, netns_place, fault, patience, words):
    """Every worker says that the other one is gone."""
    text = f"if restart: sys.exit(0)\n{pings(steps=300, patience=patience)}"
    flags = ("--num_workers=2", "--max_restarts=1", f"--inject={fault}:worker=1,step=5")
    launch.run(*netns_place.flags, *flags, text=text)
    assert launch.status == 0, launch.err
    (recovery,) = launch.result["recoveries"]
    assert recovery["failure"]["worker"] == 1
    assert recovery["failure"]["error"].startswith(words)
    assert f"worker 1 failed: {words}" in launch.err
    assert "heartbeat timeout" not in launch.err  # the logs hold these consequences
    assert "heartbeat timeout" in launch.log(0)
    launch.assert_nothing_left()


@pytest.mark.parametrize("fault", ["unplug", "freeze"])
def test_short_disconnection_is_no_failure(launch, netns_place, fault):
    text = pings(steps=40, patience=600) + "mark(f'steps-{index}', str(step))"
    flags = ("--num_workers=2", f"--inject={fault}:worker=1,step=5,seconds=1.5")
    launch.run(*netns_place.flags, *flags, text=text)
    assert launch.status == 0, launch.err
    assert launch.result["restarts"] == 0


@pytest.mark.parametrize("user", ["root", "rootless"])
def test_frozen_host_is_found_without_waiting_peers(launch, request, user):
    """Held by the kernel's freezer as root, by signals without."""
    place = request.getfixturevalue("netns_place" if user == "root" else "rootless_netns_place")
    launch.prefix = place.prefix
    text = """
    say("step", "training", step=1)
    time.sleep(60)
    """
    flags = ("--num_workers=2", "--hang_timeout=3", "--inject=freeze:worker=1,step=1")
    launch.run(*place.flags, *flags, text=text)
    assert launch.status == 1
    first = launch.result["first_failure"]
    assert (first["worker"], first["exit_code"]) == (1, None)
    assert first["error"].startswith("host unresponsive")
    assert [failure["worker"] for failure in launch.result["consequences"]] == [0]


def test_frozen_host_ends_with_killed_launcher(launch, netns_place, until, cgroups_of):
    text = """
    say("step", "training", step=1)
    mark(f"up-{index}")
    time.sleep(60)
    """
    launch.start(
        *netns_place.flags, "--num_workers=2", "--inject=freeze:worker=1,step=1", text=text
    )
    launch.wait_for("up-0", "up-1")
    frozen = (psutil.STATUS_STOPPED, psutil.STATUS_DISK_SLEEP)  # by a signal, by the freezer
    until(lambda: any(process.status() in frozen for process in launch.processes()))
    launch.process.kill()
    launch.finish()
    launch.assert_nothing_left(within_s=60)
    assert not cgroups_of(launch.process.pid)


def test_spare_host_takes_the_place_of_a_lost_one(launch, netns_place):
    """3 workers, one of which loses its network, and a fourth host that stands by."""
    text = f"if restart: mark(f'again-{{index}}', str(count))\nif restart: sys.exit(0)\n{PINGS}"
    text = text.replace("STEPS", "300").replace("PATIENCE", "25")
    flags = ("--num_workers=3", "--spare_hosts=1", "--max_restarts=1", "--grace=1")
    fault = "--inject=unplug:worker=1,step=5,seconds=60"
    launch.run(*netns_place.flags, *flags, fault, text=text)
    assert launch.status == 0, launch.err
    assert [(launch.run_dir / f"again-{index}").read_text() for index in range(3)] == ["3"] * 3
    (change,) = launch.result["resizes"]
    assert (change["before"], change["num_workers"]) == (3, 3)
    assert "[tenfold] host-3 takes the place of host-1\n" in launch.err
    (told,) = [line for line in launch.history if line["kind"] == "resized"]
    assert told["hosts"] == ["host-0", "host-2", "host-3"]
    launch.assert_nothing_left()


def test_unplug_needs_simulated_hosts(launch):
    launch.run("--num_workers=2", "--inject=unplug:worker=1", program=("true",))
    assert launch.status == 2
    assert launch.err.startswith("tenfold: --inject=unplug is for simulated hosts, not for --back")
    assert launch.err.count("\n") == 1
    assert not launch.run_dir.exists()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_training_continues_after_frozen_host(launch, netns_place, digit_shards, read_metrics):
    """The page on simulated hosts shows the same for one that is unplugged."""
    flags = (
        "--num_workers=2", f"--shards={digit_shards}", "--epochs=2", "--global_batch_size=64",
        "--steps_per_execution=4", "--checkpoint_every=8", "--max_restarts=1",
        # Wait for the fault, so that training does not end before it.
        "--inject=freeze:worker=1,step=12", "--inject=slow:worker=1,step=12,seconds=30",
    )  # fmt: skip
    launch.start(*netns_place.flags, *flags)
    launch.finish(timeout_s=280)
    assert launch.status == 0, launch.err
    (recovery,) = launch.result["recoveries"]
    assert recovery["failure"]["worker"] == 1
    assert "host unresponsive" in recovery["failure"]["error"]
    # The number of repeated steps depends on the moment of the freeze.
    assert all(note.endswith("repeated after a restart: equal") for note in launch.result["notes"])
    epochs = [line for line in read_metrics(launch.run_dir) if line["kind"] == "epoch"]
    assert all(line["receipt"]["exact"] for line in epochs)
