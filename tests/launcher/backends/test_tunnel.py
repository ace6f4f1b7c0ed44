"""`--tunnel`: workers on ssh hosts reach each other through the ssh connections alone."""

import json
import subprocess
import sys

import pytest

from tenfold.launcher.worker.python_argv import module_argv

pytestmark = pytest.mark.timeout(180)

# Every worker listens on all interfaces, as TensorFlow does, tells its peer its index over the
# address that TF_CONFIG has, and tries the same port at the peer's own network address.
TALK = """
import socket
config = json.loads(os.environ["TF_CONFIG"])["cluster"]["worker"]
ports = [int(address.rpartition(":")[2]) for address in config]
server = socket.create_server(("", ports[index]))
peer = 1 - index

def told(address):
    with socket.create_connection((address, ports[peer]), 5) as line:
        return line.recv(10).decode()

def serve():
    while True:
        line, _ = server.accept()
        with line:
            line.send(str(index).encode())

import threading
threading.Thread(target=serve, daemon=True).start()
end = time.monotonic() + 60
answer, outside = "", "open"
while time.monotonic() < end and (answer, outside) != (str(peer), "closed"):
    try:
        answer = told("127.0.0.1")
    except OSError:
        pass
    try:
        told(f"host-{peer}")
        outside = "open"
    except OSError:
        outside = "closed"
    time.sleep(0.05)
mark(f"talk-{index}-{restart}", json.dumps([config, answer, outside]))
wait_for(f"talk-{peer}-{restart}")
if restart == 0 and index == 1:
    os._exit(3)
if restart == 0:
    time.sleep(100)
"""


def test_traffic_goes_through_the_connections_alone(launch, ssh_place):
    launch.prefix = ssh_place.prefix
    flags = (*ssh_place.flags, "--tunnel", "--num_workers=2", "--max_restarts=1")
    launch.run(*flags, text=TALK)
    assert launch.status == 0, launch.err
    clusters = []
    for restart in (0, 1):  # each start has ports of its own
        for index in (0, 1):
            told = (launch.run_dir / f"talk-{index}-{restart}").read_text()
            config, answer, outside = json.loads(told)
            assert [address.partition(":")[0] for address in config] == ["127.0.0.1"] * 2
            assert (answer, outside) == (str(1 - index), "closed")
            clusters.append(tuple(config))
    assert len(set(clusters)) == 2


def test_tensorflow_exchanges_through_the_tunnel(ssh_place, tmp_path):
    argv = module_argv("tenfold", ["doctor", *ssh_place.flags, "--tunnel", "--num_workers=2"])
    done = subprocess.run(
        [*ssh_place.prefix, *argv], capture_output=True, text=True, cwd=tmp_path, timeout=150
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "an all-reduce of 4 MB over 2 workers takes" in done.stdout
    assert "open on all network interfaces" not in done.stdout


def test_taken_port_of_the_tunnel_is_named(launch, ssh_place):
    launch.prefix = ssh_place.prefix
    hold = "import socket, sys, time; s = socket.create_server(('127.0.0.1', 4023)); "
    hold += "print('held', flush=True); time.sleep(100)"
    holder = ["ssh", "-F", _config(ssh_place), "host-0", sys.executable, "-c", f'"{hold}"']
    with subprocess.Popen([*ssh_place.prefix, *holder], stdout=subprocess.PIPE, text=True) as held:
        assert held.stdout is not None
        assert held.stdout.readline() == "held\n"
        # Worker 1 on host-1 gets port 4023, which host-0 then has to carry.
        launch.run(*ssh_place.flags, "--tunnel", "--num_workers=2", "--port=4022", text="pass")
        held.kill()
    assert launch.status == 2
    last = launch.err.splitlines()[-1]
    assert last.startswith("tenfold: --tunnel: host-0 does not carry 127.0.0.1:4023: ")
    assert "AllowTcpForwarding" in last


def _config(ssh_place):
    flag = next(flag for flag in ssh_place.flags if flag.startswith("--ssh_config"))
    return flag.partition("=")[2]
