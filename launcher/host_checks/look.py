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

from tenfold.launcher.backends.base import Backend, Host
from tenfold.launcher.host_checks import probe
from tenfold.launcher.host_checks.shared_folder import token_near
from tenfold.launcher.worker.python_argv import remote_module_argv

PROBE_TIMEOUT_S: Final = 20.0

MAX_CLOCK_SKEW_S: Final = 5.0

MIN_DISK_BYTES: Final = 10**9

MIN_SHM_BYTES: Final = 64 * 2**20

WORKER_MEMORY_BYTES: Final = 600 * 10**6  # TensorFlow imported and a small model, measured


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
