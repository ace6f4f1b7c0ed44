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
