"""Reports of hosts, and the errors and warnings that follow from them."""

import dataclasses
import os
import socket
import sys

import pytest

from tenfold.launcher.backends.base import Host
from tenfold.launcher.backends.local import LocalBackend
from tenfold.launcher.host_checks.finding import ERROR, WARNING
from tenfold.launcher.host_checks.findings import judge_hosts
from tenfold.launcher.host_checks.look import HostReport, look_at_hosts
from tenfold.launcher.host_checks.shared_folder import token_near
from tenfold.launcher.job.job_spec import HostCommand

VERSIONS = {
    "python": "3.11.7",
    "tensorflow": "2.21.0",
    "keras": "3.15.1",
    "tenfold": "0.1.0",
}
PROBE_REPORT = {
    "time": 1000.0,
    "versions": VERSIONS,
    "taken": {},
    "unresolved": {},
    "disk_free": 10**12,
    "shm_free": 10**10,
    "memory_available": 10**11,
    "proxies": [],
    "gpus": {"names": [], "driver": "", "cuda": ""},
    "tensorflow_cuda": "12.5.1",
    "interface": "eth0",
    "interfaces": {"lo": "127.0.0.1", "eth0": "10.0.0.1"},
    "code": "abc",
    "missing": [],
}


def report(name="a", **changes):
    outside = {
        key: changes.pop(key) for key in ("failure", "unreached", "unshared") if key in changes
    }
    versions = {**VERSIONS, **changes.pop("versions", {})}
    return HostReport(
        host=Host(name, "10.0.0.1", "python3", remote=True),
        workers=1,
        ports=(4000,),
        seen={**PROBE_REPORT, "versions": versions, **changes},
        our_code="abc",
        asked_at=999.9,
        answered_at=1000.1,
        **outside,
    )


@pytest.mark.parametrize(
    ("reports", "level", "words"),
    [
        ([report(failure="no answer in 20 s")], ERROR, ["a cannot be used", "no answer"]),
        ([report(taken={"4000": "in use"})], ERROR, ["port 4000", "--port"]),
        ([report(unresolved={"b": "unknown"})], ERROR, ["resolve 'b'", "/etc/hosts"]),
        ([report(unreached=(("b", 4001, "timed out"),))], ERROR, ["b:4001", "firewall"]),
        ([report(versions={"tensorflow": None})], ERROR, ["no TensorFlow", "pip install"]),
        (
            [report(versions={"tensorflow": "2.15.1"})],
            ERROR,
            ["python3 on a has TensorFlow 2.15.1", "tensorflow>=2.16"],
        ),
        ([report(code="abd")], ERROR, ["code on a differs", "python3"]),
        ([report(missing=["/x"])], ERROR, ["no '/x' on a", "share"]),
        ([report(unshared="/r")], ERROR, ["a does not see", "'/r'", "--run_dir"]),
        ([report(disk_free=10**8)], WARNING, ["run directory", "--run_dir"]),
        ([report(shm_free=10**6)], WARNING, ["/dev/shm", "shm-size"]),
        ([report(memory_available=10**8)], WARNING, ["memory", "fewer"]),
        ([report(proxies=["https_proxy"])], WARNING, ["https_proxy"]),
        ([report(time=1060.0)], WARNING, ["+60 s", "NTP"]),
        (
            [report(), report("b", versions={"keras": "3.14"})],
            ERROR,
            ["keras differs", "3.14 on b"],
        ),
        ([report(), report("b", versions={"python": "3.12.1"})], ERROR, ["python differs"]),
        (
            [report(), report("b", interface="docker0")],
            WARNING,
            ["address of b", "docker0", "eth0 (10.0.0.1)"],
        ),
    ],
)
def test_each_problem_gives_one_finding_with_remedy(reports, level, words):
    (finding,) = judge_hosts(reports, needs_tensorflow=True)
    assert finding.level == level
    assert all(word in finding.text for word in words), finding.text


def test_usable_hosts_give_no_findings():
    patch_release = report("b", versions={"python": "3.11.9"})
    assert judge_hosts([report(), patch_release], needs_tensorflow=True) == ()
    without = report(versions={"tensorflow": None, "keras": None})
    assert judge_hosts([without], needs_tensorflow=False) == ()


def test_unshared_run_dir_only_warns_for_own_program():
    (finding,) = judge_hosts([report(unshared="/r")], needs_tensorflow=False)
    assert finding.level == WARNING


def test_token_is_in_nearest_folder_and_removed(tmp_path):
    with token_near(str(tmp_path / "not" / "yet")) as token:
        assert [str(path) for path in tmp_path.iterdir()] == [token]
    assert not list(tmp_path.iterdir())
    with token_near("/proc/nowhere") as token:
        assert token == ""


def test_probe_of_this_machine():
    backend = LocalBackend()
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        taken = holder.getsockname()[1]
        (free,) = backend.choose_ports(backend.hosts(1), None)
        addresses = [f"127.0.0.1:{port}" for port in (free, taken)]
        (seen,) = look_at_hosts(backend, backend.hosts(2), addresses, folder=os.getcwd())
    assert (seen.failure, seen.workers, seen.ports) == ("", 2, (free, taken))
    assert list(seen.seen["taken"]) == [str(taken)]
    assert seen.unreached == ()
    assert seen.seen["versions"]["python"] == "{}.{}.{}".format(*sys.version_info)
    findings = judge_hosts([seen], needs_tensorflow=True)
    # How much memory is free, which is warned of, the neighbours decide.
    assert [finding.check for finding in findings if finding.level == ERROR] == ["port"]


class BrokenBackend(LocalBackend):
    def command(self, host, argv, env):
        if host.name == "broken":
            return HostCommand((sys.executable, "-c", "raise SystemExit('Permission denied')"))
        if host.name == "gone":  # as if it were killed after its first answer
            program = "import os; os.close(0); print('{}', flush=True)"
            return HostCommand((sys.executable, "-c", program))
        return super().command(host, argv, env)


def test_silent_and_unreachable_hosts_are_reported():
    backend = BrokenBackend()
    (host,) = backend.hosts(1)
    ports = backend.choose_ports([host, host], None)
    hosts = [host, dataclasses.replace(host, name="broken")]
    addresses = [f"127.0.0.1:{port}" for port in ports]
    good, bad = look_at_hosts(backend, hosts, addresses, folder="/")
    assert bad.failure == "Permission denied"
    assert [port for _, port, _ in good.unreached] == [ports[1]]
    texts = [finding.text for finding in judge_hosts([good, bad], needs_tensorflow=False)]
    assert any("broken cannot be used" in text for text in texts)
    assert any(f"cannot reach 127.0.0.1:{ports[1]}" in text for text in texts)


def test_host_lost_during_probe_is_reported():
    backend = BrokenBackend()
    host = dataclasses.replace(backend.hosts(1)[0], name="gone")
    (lost,) = look_at_hosts(backend, [host], ["127.0.0.1:1"], folder="/")
    (finding,) = judge_hosts([lost], needs_tensorflow=False)
    assert finding.text == "gone cannot be used: the probe printed nothing"
