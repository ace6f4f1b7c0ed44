"""Turn the reports of hosts into errors and warnings. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from tenfold.data.units import format_size
from tenfold.launcher.host_checks import probe
from tenfold.launcher.host_checks.look import HostReport

ERROR: Final = "error"
WARNING: Final = "warning"
MAX_CLOCK_SKEW_S: Final = 5.0
MIN_DISK_BYTES: Final = 10**9
MIN_SHM_BYTES: Final = 64 * 2**20
WORKER_MEMORY_BYTES: Final = 600 * 10**6  # measured: TensorFlow imported, and a small model


@dataclass(frozen=True)
class Finding:
    """One problem.

    Attributes:
      level: ERROR or WARNING.
      check: a word for the check that found it.
      text: the problem and its remedy.
      host: the host's name; "" where several hosts are concerned.
    """

    level: str
    check: str
    text: str
    host: str = ""


def judge_hosts(reports: Sequence[HostReport], *, needs_tensorflow: bool) -> tuple[Finding, ...]:
    """Returns all problems of the hosts, errors first.

    Args:
      reports: one report per host.
      needs_tensorflow: whether the built-in trainer is to run there.
    """
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
        # A program of the user's own may not write to the run directory.
        found.append(Finding(ERROR if needs_tensorflow else WARNING, "run_dir", text))
    if report.host.remote and seen["code"] != report.our_code:
        text = f"tenfold's code on {name} differs from this machine's"
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
    middle = (report.asked_at + report.answered_at) / 2
    tolerance = MAX_CLOCK_SKEW_S + (report.answered_at - report.asked_at) / 2
    if abs(seen["time"] - middle) > tolerance:
        text = f"the clock of {name} is {seen['time'] - middle:+.0f} s off ours: start NTP there"
        found.append(Finding(WARNING, "clock", text))
    return found


def _judge_equality(reports: Sequence[HostReport]) -> list[Finding]:
    found = []
    for package in ("python", *probe.PACKAGES):
        versions = {report.host.name: report.seen["versions"][package] for report in reports}
        if len({_compatible(package, version) for version in versions.values()}) > 1:
            listed = ", ".join(f"{version} on {host}" for host, version in versions.items())
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
    """The part of a version that must be the same on all hosts: of Python's, two numbers."""
    return ".".join(version.split(".")[:2]) if package == "python" and version else version
