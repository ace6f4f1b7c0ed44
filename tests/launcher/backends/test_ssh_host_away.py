"""A host that does not come back: the job goes on with the others, by asking over real ssh."""

import contextlib
import os

import psutil
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

PROGRAM = """
import socket
if restart:
    mark(f"again-{index}", f"{count} on {socket.gethostname()}")
    sys.exit(0)
mark(f"up-{index}", str(os.getpid()))
time.sleep(100)
"""


def kill_host_of(pid: int) -> None:
    """Kill all processes on the simulated host of `pid`, its sshd included.

    Only the keeper's child stays, which holds the namespaces and starts nothing."""
    network = os.readlink(f"/proc/{pid}/ns/net")
    there = [p for p in psutil.process_iter(["cmdline"]) if network_of(p.pid) == network]
    lines = {process: " ".join(process.info["cmdline"] or ()) for process in there}
    assert any("sshd" in line for line in lines.values()), lines
    for process, line in lines.items():
        if "netns_keeper" not in line:
            with contextlib.suppress(psutil.NoSuchProcess):  # it has ended with another process
                process.kill()


def network_of(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/net")
    except OSError:
        return ""


GROWING = """
import socket
mark(f"up-{restart}-{index}", f"{count} on {socket.gethostname()}")
step = 0
while restart < 2:
    step += 1
    say("step", "training", step=step)
    time.sleep(0.1)
"""


def test_job_grows_onto_the_host_of_an_edited_file(launch, ssh_nodes, until, tmp_path):
    """Two hosts, one of which loses its network; later the other one's place is filled again.

    The file names the lost host by another setting then, as after a move: it is a new host.
    """
    launch.prefix = ssh_nodes.prefix
    file = tmp_path / "hosts"
    file.write_text("node-a\nnode-b\n")
    flags = ("--backend=ssh", f"--host_file={file}", f"--ssh_config={ssh_nodes.config}")
    count = ("--num_workers=2", "--min_workers=1", "--max_restarts=1", "--regrow_after=1s")
    launch.start(*flags, *count, "--grace=1", text=GROWING)
    launch.wait_for("up-0-0", "up-0-1")
    lost = next(host for host in ssh_nodes.hosts if host.name == "node-b")
    ssh_nodes.backend.unplug(lost)
    try:
        launch.wait_for("up-1-0")
        file.write_text(f"node-a\nnode-b address={lost.address}\n")
    finally:
        ssh_nodes.backend.heal(lost)
    launch.finish()
    assert launch.status == 0, launch.err
    assert (launch.run_dir / "up-1-0").read_text() == "1 on node-a"
    assert (launch.run_dir / "up-2-1").read_text() == "2 on node-b"
    sizes = [(change["num_workers"], change["reason"]) for change in launch.result["resizes"]]
    assert sizes == [(1, "node-b is gone"), (2, "node-b is there")]
    assert launch.result["restarts"] == 1
    launch.assert_nothing_left()


@pytest.mark.parametrize("lost", [0, 1])
def test_job_continues_without_missing_host(launch, ssh_nodes, until, lost):
    launch.prefix = ssh_nodes.prefix
    flags = ("--backend=ssh", "--hosts=node-a,node-b", f"--ssh_config={ssh_nodes.config}")
    count = ("--num_workers=2", "--min_workers=1", "--max_restarts=1", "--grace=1")
    launch.start(*flags, *count, text=PROGRAM)
    launch.wait_for("up-0", "up-1")
    up = launch.run_dir / f"up-{lost}"
    until(up.read_text)
    kill_host_of(int(up.read_text()))
    launch.finish()
    assert launch.status == 0, launch.err
    left = ("node-a", "node-b")[1 - lost]
    assert (launch.run_dir / "again-0").read_text() == f"1 on {left}"
    assert not (launch.run_dir / "again-1").exists()
    (recovery,) = launch.result["recoveries"]
    assert recovery["num_workers"] == 1
    assert recovery["failure"]["worker"] == lost
    assert launch.result["exit_codes"] == [0]
    assert "restarting with 1 worker: restart 1 of 1" in launch.err
    launch.assert_nothing_left()
