"""A look at all hosts of a job before it is launched, and what is wrong with them."""

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from tenfold.data.sizes import format_size
from tenfold.launcher import probe
from tenfold.launcher.backends import Backend, Host
from tenfold.launcher.python import remote_module_argv
from tenfold.launcher.shared_folder import token_near

PROBE_TIMEOUT_S: Final = 20.0
MAX_CLOCK_SKEW_S: Final = 5.0
MIN_DISK_BYTES: Final = 10**9
MIN_SHM_BYTES: Final = 64 * 2**20
WORKER_MEMORY_BYTES: Final = 600 * 10**6  # TensorFlow imported and a small model, measured

ERROR: Final = "error"
WARNING: Final = "warning"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: `level` is ERROR or WARNING, `check` a word for what was looked at;
    `text` says what to do. `host` is empty where it is about all of them.
    """

    level: str
    check: str
    text: str
    host: str = ""


@dataclass(frozen=True)
class HostReport:
    """What the probe saw on one host (see probe.py); `failure` where it could not look.

    `unshared` is a folder of ours that it should see and does not. `asked_at` and `told_at` are
    our clock's times around its answer.
    """

    host: Host
    workers: int
    ports: tuple[int, ...]
    seen: dict[str, Any]
    our_code: str = ""
    unreached: tuple[tuple[str, int, str], ...] = ()
    failure: str = ""
    unshared: str = ""
    asked_at: float = 0.0
    told_at: float = 0.0


def look_at_hosts(
    backend: Backend,
    hosts: Sequence[Host],
    addresses: Sequence[str],
    *,
    folder: str,
    paths: Sequence[str] = (),
    shared: str = "",
) -> tuple[HostReport, ...]:
    """Returns a report of each host of `hosts`; `addresses` are those of the workers.

    `folder` is what will be written to, `paths` what the workers need, `shared` a folder of this
    machine (which need not be there yet) that remote hosts should see too.

    All hosts listen on their workers' ports while each tries to reach all others.
    """
    by_host: dict[Host, list[int]] = {}
    for host, address in zip(hosts, addresses, strict=True):
        by_host.setdefault(host, []).append(int(address.rpartition(":")[2]))
    names = sorted({host.address for host in hosts})
    peers = [(host.address, ports[0]) for host, ports in by_host.items()]
    with contextlib.ExitStack() as stack:
        token = stack.enter_context(token_near(shared)) if shared else ""
        wanted = {"names": names, "folder": folder, "paths": [*paths, *filter(None, [token])]}
        visits = [_Visit(backend, host, tuple(ports), wanted) for host, ports in by_host.items()]
        for visit in visits:
            stack.callback(visit.close)
        with ThreadPoolExecutor(len(visits)) as pool:
            list(pool.map(_Visit.look, visits))
            list(pool.map(lambda visit: visit.reach(peers), visits))
    return tuple(_without_token(visit.report, token, shared) for visit in visits)


def _without_token(report: HostReport, token: str, shared: str) -> HostReport:
    missing = report.seen.get("missing", [])
    if token not in missing:
        return report
    seen = {**report.seen, "missing": [path for path in missing if path != token]}
    return replace(report, seen=seen, unshared=shared)


class _Visit:
    """One probe at work."""

    def __init__(
        self,
        backend: Backend,
        host: Host,
        ports: tuple[int, ...],
        wanted: Mapping[str, Any],
    ) -> None:
        request = {"address": host.address, "ports": ports, **wanted}
        command = backend.command(host, _probe_argv(host, json.dumps(request)), {})
        self.report = HostReport(
            host, len(ports), ports, {}, our_code=probe.code_digest(), asked_at=time.time()
        )
        self._process = subprocess.Popen(
            command.argv,
            env={**os.environ, **command.env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def look(self) -> None:
        self._update(**_read_json(self._process, "seen"), told_at=time.time())

    def reach(self, peers: Sequence[tuple[str, int]]) -> None:
        stdin = self._process.stdin
        if self.report.failure or stdin is None:
            return
        with contextlib.suppress(BrokenPipeError):  # it is gone, and says nothing
            stdin.write(json.dumps(peers) + "\n")
            stdin.flush()
        answer = _read_json(self._process, "unreached")
        self._update(**{name: _tuples(value) for name, value in answer.items()})

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _update(self, **changes: Any) -> None:
        self.report = HostReport(**{**vars(self.report), **changes})


def _probe_argv(host: Host, request: str) -> tuple[str, ...]:
    if host.remote:
        return remote_module_argv(probe.__name__, [request], python=host.python)
    return (host.python, "-I", str(Path(probe.__file__).resolve()), request)


def _tuples(value: Any) -> Any:
    return tuple(map(tuple, value)) if isinstance(value, list) else value


def _read_json(process: "subprocess.Popen[str]", name: str) -> dict[str, Any]:
    """Returns {`name`: what the probe says next}, or {"failure": why it says nothing}."""
    assert process.stdout is not None
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(process.stdout.readline)
        try:
            return {name: json.loads(answer.result(PROBE_TIMEOUT_S))}
        except FutureTimeoutError:  # another class before Python 3.11
            process.kill()
            return {"failure": f"no answer in {PROBE_TIMEOUT_S:.0f} s"}
        except ValueError:
            process.kill()
            said = process.stderr.read() if process.stderr else ""
            return {"failure": said.strip().rpartition("\n")[2] or "the probe said nothing"}


def judge_hosts(reports: Sequence[HostReport], *, needs_tensorflow: bool) -> tuple[Finding, ...]:
    """Returns all that is wrong with the hosts, errors first. Pure."""
    found = []
    for report in reports:
        judged = _judge_failure(report) or _judge_host(report, needs_tensorflow)
        found += [replace(finding, host=report.host.name) for finding in judged]
    found += _judge_equality([report for report in reports if not report.failure])
    return tuple(sorted(found, key=lambda finding: finding.level != ERROR))


def _judge_failure(report: HostReport) -> list[Finding]:
    text = f"{report.host.name} cannot be used: {report.failure}"
    if report.host.remote:
        text += f" (install tenfold there under {report.host.python}, or name another python)"
    return [Finding(ERROR, "answer", text)] if report.failure else []


def _judge_host(report: HostReport, needs_tensorflow: bool) -> list[Finding]:
    name, seen = report.host.name, report.seen
    found = [
        Finding(
            ERROR, "port", f"port {port} on {name} is taken ({why}): give another --port, or none"
        )
        for port, why in seen["taken"].items()
    ]
    found += [
        Finding(
            ERROR, "names", f"{name} cannot resolve '{peer}' ({why}): fix DNS or /etc/hosts there"
        )
        for peer, why in seen["unresolved"].items()
    ]
    found += [
        Finding(
            ERROR,
            "network",
            f"{name} cannot reach {address}:{port} ({why}): open the workers' ports in the "
            "firewall, or name addresses of a network that the hosts share",
        )
        for address, port, why in report.unreached
        if str(port) not in seen["taken"]
    ]
    if needs_tensorflow and not seen["versions"]["tensorflow"]:
        python = report.host.python
        found.append(
            Finding(
                ERROR, "packages", f"{python} on {name} has no TensorFlow: pip install tensorflow"
            )
        )
    found += [
        Finding(
            ERROR,
            "files",
            f"there is no '{path}' on {name}: put it on storage that all hosts share",
        )
        for path in seen["missing"]
    ]
    if report.unshared:
        text = f"{name} does not see this machine's '{report.unshared}': give a --run_dir on "
        text += "storage that all hosts share (NFS, or gs://…)"
        # A program of the user's own need not write there.
        found.append(Finding(ERROR if needs_tensorflow else WARNING, "run_dir", text))
    if report.host.remote and seen["code"] != report.our_code:
        text = f"{name} has another state of tenfold's code than this machine"
        found.append(
            Finding(
                ERROR, "packages", f"{text}: install the same there, under {report.host.python}"
            )
        )
    return found + _judge_space(report) + _judge_surroundings(report)


def _judge_space(report: HostReport) -> list[Finding]:
    name, seen, found = report.host.name, report.seen, []
    if seen["disk_free"] < MIN_DISK_BYTES:
        free = format_size(seen["disk_free"])
        text = f"only {free} are free for the run directory on {name}: checkpoints may not fit"
        found.append(
            Finding(WARNING, "disk", text + "; free some, or give --run_dir on another disk")
        )
    shm = seen["shm_free"]
    if shm is not None and shm < MIN_SHM_BYTES:
        text = f"only {format_size(shm)} of /dev/shm are free on {name}: raise it"
        found.append(Finding(WARNING, "memory", text + " (docker run --shm-size=1g)"))
    memory, wanted = seen["memory_available"], report.workers * WORKER_MEMORY_BYTES
    if memory is not None and memory < wanted:
        text = f"{report.workers} workers on {name} want about {format_size(wanted)} of memory, "
        text += f"{format_size(memory)} are available: start fewer there"
        found.append(Finding(WARNING, "memory", text))
    return found


def _judge_surroundings(report: HostReport) -> list[Finding]:
    name, seen, found = report.host.name, report.seen, []
    if seen["proxies"]:
        text = f"{', '.join(seen['proxies'])} is set on {name}: the workers' own traffic goes "
        found.append(Finding(WARNING, "proxy", text + "past it (no_grpc_proxy is set for them)"))
    middle = (report.asked_at + report.told_at) / 2
    tolerance = MAX_CLOCK_SKEW_S + (report.told_at - report.asked_at) / 2
    if abs(seen["time"] - middle) > tolerance:
        text = f"the clock of {name} is {seen['time'] - middle:+.0f} s off ours: start NTP there"
        found.append(Finding(WARNING, "clock", text))
    return found


def _judge_equality(reports: Sequence[HostReport]) -> list[Finding]:
    found = []
    for package in ("python", *probe.PACKAGES):
        told = {report.host.name: report.seen["versions"][package] for report in reports}
        if len({_compatible(package, version) for version in told.values()}) > 1:
            listed = ", ".join(f"{version} on {host}" for host, version in told.items())
            text = f"{package} differs: {listed}; install the same everywhere"
            found.append(Finding(ERROR, "packages", text))
    gpus = {report.host.name: report.seen["gpus"] / report.workers for report in reports}
    if len(set(gpus.values())) > 1:
        listed = ", ".join(f"{report.seen['gpus']} on {report.host.name}" for report in reports)
        text = f"the numbers of GPUs differ: {listed}; MultiWorkerMirroredStrategy needs the same"
        found.append(
            Finding(ERROR, "gpus", text + " number on every worker: set CUDA_VISIBLE_DEVICES")
        )
    return found


def _compatible(package: str, version: str | None) -> str | None:
    """What must be equal of a version: for Python the first two numbers."""
    return ".".join(version.split(".")[:2]) if package == "python" and version else version
