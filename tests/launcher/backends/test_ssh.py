"""Over ssh: what only a real sshd can show, on simulated hosts."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import psutil
import pytest

from tenfold.data.errors import UserError
from tenfold.data.runtime.scratch_folder import NEW_FOLDER_S, scratch_folder
from tenfold.launcher.backends import ssh
from tenfold.launcher.backends.base import ListedHosts
from tenfold.launcher.backends.host_list import parse_hosts
from tenfold.launcher.backends.ssh import SshBackend

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def launch(launch, ssh_place):
    launch.prefix = ssh_place.prefix
    return launch


def config_flag(ssh_place):
    return next(flag for flag in ssh_place.flags if flag.startswith("--ssh_config"))


def test_host_file_settings_reach_the_workers(launch, ssh_place):
    (launch.folder / "hosts").write_text(
        f"host-1 slots=2 address=10.83.0.2 user={os.environ.get('USER', 'root')} port=22\nhost-0\n"
    )
    text = """
    import socket
    mark(f"told-{index}", json.dumps([os.environ["TF_CONFIG"], socket.gethostname()]))
    """
    flags = ("--backend=ssh", "--host_file=hosts", config_flag(ssh_place), "--num_workers=3")
    launch.run(*flags, text=text)
    assert launch.status == 0, launch.err
    told = [json.loads((launch.run_dir / f"told-{index}").read_text()) for index in range(3)]
    assert [name for _, name in told] == ["host-1", "host-1", "host-0"]
    workers = json.loads(told[0][0])["cluster"]["worker"]
    assert [worker.partition(":")[0] for worker in workers] == ["10.83.0.2"] * 2 + ["host-0"]
    assert len(set(workers)) == 3


def test_disconnected_host_ends_worker_and_job(launch, ssh_place, ssh_hosts, until):
    text = """
    mark(f"up-{index}", str(os.getpid()))
    time.sleep(100)
    """
    launch.start(*ssh_place.flags, "--num_workers=2", text=text)
    launch.wait_for("up-0", "up-1")
    far = ssh_hosts.hosts[1]
    until(lambda: (launch.run_dir / "up-1").read_text())
    worker = psutil.Process(int((launch.run_dir / "up-1").read_text()))
    ssh_hosts.backend.unplug(far)
    try:
        launch.finish()
        assert launch.status == 1, launch.err
        first = launch.result["first_failure"]
        assert (first["worker"], first["exit_code"]) == (1, None)
        assert "the connection closed without an exit status" in first["error"]
        until(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE)
    finally:
        ssh_hosts.backend.heal(far)


def test_refused_login_is_reported_before_start(launch, ssh_place):
    bad = launch.folder / "config"
    bad.write_text("Host *\n  IdentityFile none\n  IdentitiesOnly yes\n  UserKnownHostsFile x\n")
    flags = ("--backend=ssh", "--hosts=host-0", "--num_workers=1", f"--ssh_config={bad}")
    launch.run(*flags, text="pass")
    assert launch.status == 2
    assert launch.err.startswith("tenfold: host 'host-0' cannot be reached by ssh: Host key")
    assert launch.err.count("\n") == 1
    assert not launch.run_dir.exists()


def test_interpreter_without_tenfold_is_reported(launch, ssh_place):
    (launch.folder / "hosts").write_text("host-0 python=/usr/bin/python3\n")
    flags = ("--backend=ssh", "--host_file=hosts", config_flag(ssh_place), "--num_workers=1")
    launch.run(*flags, text="pass")
    assert launch.status == 2
    assert "No module named 'tenfold'" in launch.err
    assert "install tenfold there under /usr/bin/python3" in launch.err
    assert not launch.run_dir.exists()


def test_unshared_run_dir_is_reported(launch, ssh_place, digit_shards):
    """The sshd of the test have a /run of their own."""
    if not os.access("/run", os.W_OK):
        pytest.skip("/run cannot be written to")
    own = Path(f"/run/tenfold-{os.getpid()}")
    flags = (*ssh_place.flags, "--num_workers=2", f"--run_dir={own}/first")
    launch.run(*flags, text="pass")
    assert launch.status == 0, launch.err
    told = f"host-0 does not see this machine's '{own}/first': give a --run_dir on storage"
    assert f"[tenfold] warning: {told}" in launch.err
    shutil.rmtree(own)
    launch.run(*flags, f"--shards={digit_shards}")
    assert launch.status == 2
    assert launch.err.startswith(f"tenfold: {told}")
    assert launch.err.count("\n") == 1
    assert not own.exists()


def age(folder):
    os.utime(folder, (time.time() - 2 * NEW_FOLDER_S,) * 2)


@pytest.fixture
def short_folder():
    """A folder whose path leaves room for the name of a socket: 108 characters in all."""
    with tempfile.TemporaryDirectory() as outer:
        folder = Path(outer, "x")
        folder.mkdir()
        yield folder


def test_next_launch_removes_left_over_sockets(launch, ssh_place, short_folder, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(short_folder))
    launch.start(*ssh_place.flags, "--num_workers=1", text="mark('up')\ntime.sleep(100)")
    launch.wait_for("up")
    launch.process.kill()
    launch.finish()
    launch.assert_nothing_left(within_s=60)
    (left,) = short_folder.glob("tenfold-ssh-*")
    with mock.patch.object(tempfile, "tempdir", str(short_folder)):
        age(left)
        with scratch_folder("tenfold-ssh-"):
            assert not left.exists()


def test_ssh_connections_survive_sigint_to_group(launch, ssh_place):
    """As `timeout` and a terminal do."""
    text = """
    def stop(*_):
        time.sleep(0.5)
        mark(f"tidy-{index}")
        sys.exit(5)
    signal.signal(signal.SIGTERM, stop)
    mark(f"up-{index}")
    time.sleep(60)
    """
    launch.prefix = ("setsid", "--wait", *ssh_place.prefix)
    launch.start(*ssh_place.flags, "--num_workers=2", text=text)
    launch.wait_for("up-0", "up-1")
    group = {os.getpgid(one.pid) for one in launch.processes() if "tenfold" in one.cmdline()}
    os.killpg(group.pop(), signal.SIGTERM)
    launch.finish()
    assert launch.result["exit_codes"] == [5, 5], launch.err
    assert {"tidy-0", "tidy-1"} <= set(os.listdir(launch.run_dir))


def test_hostile_arguments_survive_the_remote_shell(tmp_path):
    words = ["", "a b", "it's", '"', "$HOME `id` \\ ;&|<>*?[]{}()!#~", "new\nline", "ä→", "-x"]
    backend = SshBackend(parse_hosts("a"))
    backend._sockets = tmp_path
    (host,) = backend.hosts(1)
    show = [sys.executable, "-c", "import os, sys; print([os.environ['X'], *sys.argv[1:]])"]
    command = backend.command(host, [*show, *words], {"X": "1'; id"})
    *_, dashes, destination, far = command.argv
    assert (dashes, destination) == ("--", "a")
    shown = subprocess.run(["sh", "-c", far], capture_output=True, text=True, check=True)
    assert shown.stdout == f"{['1' + chr(39) + '; id', *words]}\n"


def test_host_file_is_read_again(tmp_path):
    file = tmp_path / "hosts"
    file.write_text("a slots=2\nb\n")
    backend = ssh.create({"host_file": str(file)})
    assert isinstance(backend, ListedHosts)
    assert backend.list_hosts()[:2] == backend.hosts(2)
    assert [host.name for host in backend.list_hosts()] == ["a", "a", "b"]
    file.write_text("a\nc address=10.0.0.9\n")
    assert [(host.name, host.address) for host in backend.list_hosts()] == [
        ("a", "a"), ("c", "10.0.0.9")
    ]  # fmt: skip
    file.write_text("a color=red\n")
    with pytest.raises(UserError, match="line 1: 'color=red' is not a setting"):
        backend.list_hosts()
    listed = SshBackend(parse_hosts("a,b"))
    assert listed.list_hosts() == listed.hosts(2)


def test_hosts_need_exactly_one_list(tenfold):
    for flags in ([], ["--hosts=a", "--host_file=b"]):
        done = tenfold("launch", "--backend=ssh", *flags, "--", "true")
        assert (done.status, done.out) == (2, "")
        assert "needs --hosts=a,b,c or --host_file=FILE (one of them)" in done.err
    done = tenfold("launch", "--backend=ssh", "--host_file=none/here", "--", "true")
    assert "host_file 'none/here' cannot be read" in done.err
