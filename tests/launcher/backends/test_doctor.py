"""`tenfold doctor`: on this machine, and on simulated hosts with an sshd each."""

import json
import re
import socket
import subprocess
from types import SimpleNamespace
from typing import Any

import pytest

from tenfold.launcher.backends.backend_registry import load_backend
from tenfold.launcher.backends.ports import pick_ports
from tenfold.launcher.cli.prepare import exchange_check
from tenfold.launcher.cli.prepare.host_check import look_at
from tenfold.launcher.host_checks.finding import Finding
from tenfold.launcher.host_checks.probe import interface_addresses
from tenfold.launcher.job.job_spec import ClusterSpec, JobSpec
from tenfold.launcher.worker.python_argv import module_argv

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def doctor(ssh_place, tmp_path):
    """Run doctor on two hosts: one has no tenfold, and the workers' ports are those of sshd."""
    config = next(flag for flag in ssh_place.flags if flag.startswith("--ssh_config"))
    (tmp_path / "hosts").write_text("host-0\nhost-1 python=/usr/bin/python3\n")

    def run(*flags):
        where = ("--backend=ssh", "--host_file=hosts", config, "--num_workers=2", "--port=22")
        argv = [*ssh_place.prefix, *module_argv("tenfold", ["doctor"]), *where, *flags]
        return subprocess.run(argv, capture_output=True, text=True, cwd=tmp_path, timeout=100)

    return run


PORT = "port 22 on host-0 is taken (Address already in use): give another --port, or none"
ANSWER = "host-1 cannot be used: "


def test_unusable_hosts_end_with_status_1(doctor):
    done = doctor("--", "true")
    assert done.returncode == 1, done.stderr
    first, second, *errors = done.stdout.splitlines()
    assert re.match(r"host-0 \(1 worker\): python .* GPUs$", first)
    assert second == "host-1: no report"
    assert f"error: {PORT}" in errors
    assert any(line.startswith(f"error: {ANSWER}") for line in errors)
    assert "nothing is wrong" not in errors


def test_findings_as_json(doctor):
    done = doctor("--format=json", "--", "true")
    assert done.returncode == 1, done.stderr
    document = json.loads(done.stdout)
    assert not document["can_launch"]
    hosts = [(host["name"], host["outcome"], host["ports"]) for host in document["hosts"]]
    assert hosts == [("host-0", "error", [22]), ("host-1", "error", [23])]
    assert document["hosts"][0]["versions"].keys() >= {"python", "tensorflow"}
    assert document["hosts"][1]["versions"] is None
    findings = {(one["host"], one["check"]): one for one in document["findings"]}
    # There may be warnings too: this machine may be short of memory.
    taken, silent = findings["host-0", "port"], findings["host-1", "answer"]
    assert taken["text"] == PORT
    assert silent["text"].startswith(ANSWER)
    assert (taken["level"], silent["level"]) == ("error", "error")


def test_usable_machine_and_shards_as_json(tenfold, digit_shards):
    flags = (f"--shards={digit_shards}", "--num_workers=2")
    done = tenfold("doctor", *flags, "--format=json", "--noexchange")
    assert (done.status, done.err) == (0, "")
    document = json.loads(done.out)
    assert document["can_launch"]
    assert document["shards_shared_by"] == 2
    (host,) = document["hosts"]
    assert (host["name"], host["workers"], len(set(host["ports"]))) == ("localhost", 2, 2)
    assert host["disk_free_bytes"] > 0
    assert document["notes"] == []  # the ports are closed to other machines
    # This machine may be short of memory: a warning, not an error.
    assert "error" not in {host["outcome"], *(one["level"] for one in document["findings"])}


def test_ports_that_others_reach_are_noted(tenfold, netns_works):
    outer = [name for name in interface_addresses() if name != "lo"]
    for flags, noted in (
        (("--backend=local",), False),
        (("--backend=netns",), False),
        *(((f"--network_interface={name}",), True) for name in outer[:1]),
    ):
        done = tenfold("doctor", *flags, "--num_workers=2", "--noexchange")
        assert done.status == 0, done.err
        assert ("open on all network interfaces" in done.out) == noted


def test_spare_hosts_are_checked_too(tenfold, netns_works):
    done = tenfold("doctor", "--backend=netns", "--num_workers=1", "--spare_hosts=1")
    assert [line.partition(" (")[0] for line in done.out.splitlines()[:2]] == ["host-0", "host-1"]


def test_missing_shards_are_refused(tenfold, tmp_path):
    done = tenfold("doctor", f"--shards={tmp_path / 'none'}", "--format=json")
    assert (done.status, done.out) == (2, "")
    assert str(tmp_path / "none") in done.err
    assert done.err.count("\n") == 1


def test_taken_local_port_is_refused(tenfold, taken_port):
    done = tenfold("doctor", "--num_workers=1", f"--port={taken_port}", "--format=json")
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith(f"tenfold: port {taken_port} ")


@pytest.mark.parametrize("asked_for", [False, True])
def test_taken_port_is_replaced_unless_requested(taken_port, tmp_path, asked_for):
    (free,) = pick_ports("127.0.0.1", 1)
    picked = iter([taken_port, free])
    backend = load_backend("local")
    launch: Any = SimpleNamespace(
        backend=backend,
        all_hosts=backend.hosts(1),
        spec=JobSpec(("true",), 1, str(tmp_path)),
        first_port=taken_port if asked_for else None,
        passed_env={},
        choose_cluster=lambda hosts: ClusterSpec((f"127.0.0.1:{next(picked)}",)),
    )
    (report,) = look_at(launch)
    assert report.ports == ((taken_port,) if asked_for else (free,))
    assert list(report.seen["taken"]) == ([str(taken_port)] if asked_for else [])


@pytest.fixture
def taken_port():
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder.getsockname()[1]


def test_flags_without_meaning_are_refused(tenfold):
    help_text = tenfold("doctor", "--help").out
    assert "--format=…" in help_text
    assert "dry_run" not in help_text
    assert "dry_run" in tenfold("launch", "--help").out
    for argument, words in (("--dry_run", "unknown flag --dry_run"), ("foo", "argument 'foo'")):
        done = tenfold("doctor", argument)
        assert (done.status, done.out) == (2, "")
        assert words in done.err


def test_exchange_measures_the_network(tenfold, netns_works):
    flags = ("--backend=netns", "--num_workers=2", "--host_bandwidth=50mbit", "--format=json")
    done = tenfold("doctor", *flags)
    assert (done.status, done.err) == (0, ""), done.out
    exchange = json.loads(done.out)["all_reduce"]
    assert (exchange["num_workers"], exchange["num_bytes"]) == (2, 4_000_000)
    # What the two workers send cannot be faster than their network.
    assert 0 < exchange["bits_per_s"] < 60e6


def test_failed_exchange_is_a_finding(monkeypatch):
    monkeypatch.setattr(exchange_check, "EXCHANGE_MODULE", "tenfold.launcher.worker.nothing")
    backend = load_backend("local")
    hosts = backend.hosts(2)
    ports = backend.choose_ports(hosts, None)
    cluster = ClusterSpec(tuple(f"127.0.0.1:{port}" for port in ports))
    spec = JobSpec((), 2, "")
    finding = exchange_check.check_exchange(backend, hosts, cluster, spec, passed_env={})
    assert isinstance(finding, Finding)
    assert finding.level == "error"
    assert "cannot exchange with the others: " in finding.text
    assert finding.text.endswith("exited with 1")
