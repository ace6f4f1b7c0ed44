"""The ports of workers: closed to other machines where all workers are on this one."""

import pytest

from tenfold.launcher.job.job_spec import ClusterSpec

pytestmark = pytest.mark.timeout(120)

# The worker listens on all interfaces, as TensorFlow does, and sees what its agent makes of that.
LISTEN = """
import socket
address = json.loads(os.environ["TF_CONFIG"])["cluster"]["worker"][index]
server = socket.create_server(("", int(address.rpartition(":")[2])))
other = socket.create_server(("", 0))

def device(listener):
    bound = listener.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16)
    return bound.rstrip(b"\\0").decode()

end = time.monotonic() + 60
while not device(server) and time.monotonic() < end:
    time.sleep(0.02)
mark("devices", json.dumps([device(server), device(other)]))
"""


def test_port_of_a_local_worker_is_for_this_machine_alone(launch):
    launch.run("--num_workers=1", text=LISTEN)
    assert launch.status == 0, launch.err
    assert (launch.run_dir / "devices").read_text() == '["lo", ""]'


@pytest.mark.parametrize(
    ("workers", "is_on_loopback"),
    [
        (("127.0.0.1:1", "127.0.0.1:2"), True),
        (("localhost:1",), True),
        (("localhost:1", "node-b:1"), False),
        (("localhost.example.org:1",), False),
        (("10.0.0.1:1", "10.0.0.2:1"), False),
    ],
)
def test_cluster_is_local_only_as_a_whole(workers, is_on_loopback):
    assert ClusterSpec(workers).is_on_loopback == is_on_loopback
