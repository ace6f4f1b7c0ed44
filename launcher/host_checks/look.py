"""Probe all hosts of a job before it is launched.

A probe process runs on every host at the same time, so that each host can try to reach all
others; this machine's own probe runs in this process. One thread per host talks to its probe, in
two rounds:

1. every probe inspects its host, opens the workers' ports, and prints its report;
2. once all reports are in, every probe gets the addresses of all hosts and prints those that it
   cannot reach. The ports stay open until every probe has answered.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from tenfold.launcher.backends.base import Backend, Host
from tenfold.launcher.host_checks import probe
from tenfold.launcher.host_checks.shared_folder import token_near
from tenfold.launcher.job.job_spec import HostCommand
from tenfold.launcher.worker.python_argv import remote_module_argv

PROBE_TIMEOUT_S: Final = 20.0


@dataclass(frozen=True)
class HostReport:
    """The report of one host.

    Attributes:
      host: the host.
      workers: how many workers run there.
      ports: the workers' ports.
      seen: the probe's report (see probe.py); empty after a failure.
      our_code: the digest of this machine's tenfold code, to compare.
      unreached: (address, port, reason) of the peers that the host cannot reach.
      failure: why there is no report; "" where there is one.
      unshared: a folder of this machine that the host should see and does not.
      asked_at: this machine's time when the probe was started.
      answered_at: this machine's time when its report arrived.
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
    answered_at: float = 0.0


def look_at_hosts(
    backend: Backend,
    hosts: Sequence[Host],
    addresses: Sequence[str],
    *,
    folder: str,
    paths: Sequence[str] = (),
    shared: str = "",
    cuda_visible_devices: str | None = None,
) -> tuple[HostReport, ...]:
    """Return a report of each host of `hosts`.

    Args:
      backend: the back end, opened.
      hosts: the host of each worker.
      addresses: ``address:port`` of each worker.
      folder: a folder that workers write to; its disk is measured.
      paths: paths that workers need.
      shared: a folder of this machine that remote hosts should see too. It need not exist yet.
      cuda_visible_devices: the variable of that name that workers get; None: that of their host.
    """
    by_host: dict[Host, list[tuple[str, int]]] = {}
    for host, worker in zip(hosts, addresses, strict=True):
        address, _, port = worker.rpartition(":")
        by_host.setdefault(host, []).append((address, int(port)))
    peers = [workers[0] for workers in by_host.values()]
    names = sorted({address for address, _ in peers})
    with contextlib.ExitStack() as stack:
        token = stack.enter_context(token_near(shared)) if shared else ""
        wanted = {
            "names": names,
            "folder": folder,
            "paths": [*paths, *filter(None, [token])],
            "cuda_visible_devices": cuda_visible_devices,
        }
        probes = [_start_probe(backend, host, own, wanted) for host, own in by_host.items()]
        for running in probes:
            stack.callback(running.close)
        _at_once(lambda running: running.read_report(), probes)
        _at_once(lambda running: running.reach(peers), probes)
    return tuple(_without_token(running.report, token, shared) for running in probes)


def _without_token(report: HostReport, token: str, shared: str) -> HostReport:
    missing = report.seen.get("missing", [])
    if token not in missing:
        return report
    seen = {**report.seen, "missing": [path for path in missing if path != token]}
    return replace(report, seen=seen, unshared=shared)


def _at_once(action: "Callable[[_Probe], None]", probes: "Sequence[_Probe]") -> None:
    if len(probes) == 1:
        action(probes[0])
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(len(probes)) as pool:
        list(pool.map(action, probes))


def _start_probe(
    backend: Backend, host: Host, workers: Sequence[tuple[str, int]], wanted: Mapping[str, Any]
) -> "_Probe":
    """Start the probe of a host; the code of this machine is not compared with itself."""
    ports = tuple(port for _, port in workers)
    request = {"address": workers[0][0], "ports": ports, "code": host.remote, **wanted}
    our_code = probe.code_digest() if host.remote else ""
    report = HostReport(host, len(ports), ports, {}, our_code=our_code, asked_at=time.time())
    argv = probe_argv(host, json.dumps(request))
    command = backend.command(host, argv, {})
    is_own = command == HostCommand(argv) and host.python == sys.executable and not host.remote
    return _OwnProbe(report, request) if is_own else _ProbeProcess(report, command)


class _Probe:
    """One probe and the report so far. Only one thread at a time talks to it."""

    def __init__(self, report: HostReport) -> None:
        self.report = report

    def read_report(self) -> None:
        """Have the host inspected."""
        raise NotImplementedError

    def reach(self, peers: Sequence[tuple[str, int]]) -> None:
        """Have the host connect to `peers`."""
        raise NotImplementedError

    def close(self) -> None:
        """End the probe, which closes its ports."""
        raise NotImplementedError

    def _update(self, **changes: Any) -> None:
        self.report = HostReport(**{**vars(self.report), **changes})


class _OwnProbe(_Probe):
    """The probe of this machine, in this process."""

    def __init__(self, report: HostReport, request: dict[str, Any]) -> None:
        super().__init__(report)
        self._request = request
        self._servers: list[socket.socket] = []

    def read_report(self) -> None:
        seen, self._servers = probe.inspect_host(self._request)
        # As the other probes' reports arrive: JSON turns the keys of a dict into texts.
        self._update(seen=json.loads(json.dumps(seen)), answered_at=time.time())

    def reach(self, peers: Sequence[tuple[str, int]]) -> None:
        self._update(unreached=tuple(probe.unreached(list(peers))))

    def close(self) -> None:
        for server in self._servers:
            server.close()


class _ProbeProcess(_Probe):
    """A running probe on another host, or in surroundings of its own."""

    def __init__(self, report: HostReport, command: HostCommand) -> None:
        super().__init__(report)
        self._process = subprocess.Popen(
            command.argv,
            env={**os.environ, **command.env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def read_report(self) -> None:
        self._update(**_read_json(self._process, "seen"), answered_at=time.time())

    def reach(self, peers: Sequence[tuple[str, int]]) -> None:
        stdin = self._process.stdin
        if self.report.failure or stdin is None:
            return
        with contextlib.suppress(BrokenPipeError):  # it has ended; reading reports the failure
            stdin.write(json.dumps(peers) + "\n")
            stdin.flush()
        answer = _read_json(self._process, "unreached")
        self._update(**{name: _tuples(value) for name, value in answer.items()})

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def probe_argv(host: Host, request: str) -> tuple[str, ...]:
    """Return the argv that runs the probe on `host` with a request."""
    if host.remote:
        return remote_module_argv(probe.__name__, [request], python=host.python)
    return (host.python, "-I", str(Path(probe.__file__).resolve()), request)


def _tuples(value: Any) -> Any:
    return tuple(map(tuple, value)) if isinstance(value, list) else value


def _read_json(process: "subprocess.Popen[str]", name: str) -> dict[str, Any]:
    """Return {`name`: the next line of the probe, parsed}, or {"failure": the reason}."""
    from concurrent.futures import ThreadPoolExecutor
    from concurrent.futures import TimeoutError as FutureTimeoutError

    assert process.stdout is not None
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(process.stdout.readline)
        try:
            return {name: json.loads(answer.result(PROBE_TIMEOUT_S))}
        except FutureTimeoutError:  # not the built-in TimeoutError before Python 3.11
            process.kill()
            return {"failure": f"no answer in {PROBE_TIMEOUT_S:.0f} s"}
        except ValueError:
            process.kill()
            errors = process.stderr.read() if process.stderr else ""
            return {"failure": errors.strip().rpartition("\n")[2] or "the probe printed nothing"}
