"""Turn the reports of hosts into errors and warnings. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from tenfold.data.runtime.tensorflow_version import version_problem
from tenfold.data.units import format_size
from tenfold.launcher.host_checks import probe
from tenfold.launcher.host_checks.finding import ERROR, WARNING, Finding
from tenfold.launcher.host_checks.gpu_findings import judge_gpus
from tenfold.launcher.host_checks.look import HostReport

MAX_CLOCK_SKEW_S: Final = 5.0
MIN_DISK_BYTES: Final = 10**9
MIN_SHM_BYTES: Final = 64 * 2**20
WORKER_MEMORY_BYTES: Final = 600 * 10**6  # measured: TensorFlow imported, and a small model


def judge_hosts(
    reports: Sequence[HostReport], *, needs_tensorflow: bool, gpus_per_worker: str = ""
) -> tuple[Finding, ...]:
    """Return all problems of the hosts, errors first.

    Args:
      reports: one report per host.
      needs_tensorflow: whether the built-in trainer is to run there.
      gpus_per_worker: a number, ``all``, or "" where workers use the GPUs that they see.
    """
    found = []
    for report in reports:
        judged = _judge_failure(report) or _judge_host(report, needs_tensorflow)
        found += [replace(finding, host=report.host.name) for finding in judged]
    answered = [report for report in reports if not report.failure]
    found += [*_judge_equality(answered), *_judge_interfaces(answered)]
    found += judge_gpus(answered, gpus_per_worker=gpus_per_worker)
    return tuple(sorted(found, key=lambda finding: finding.level != ERROR))


def _judge_failure(report: HostReport) -> list[Finding]:
    text = f"{report.host.name} cannot be used: {report.failure}"
    if report.host.remote:
        text += f" (install tenfold there under {report.host.python}, or name another python)"
    return [Finding(ERROR, "answer", text)] if report.failure else []


def _judge_host(report: HostReport, needs_tensorflow: bool) -> list[Finding]:
    return [
        *_judge_network(report),
        *_judge_tensorflow(report, needs_tensorflow),
        *_judge_files(report, needs_tensorflow),
        *_judge_code(report),
        *_judge_resources(report),
        *_judge_proxies(report),
        *_judge_clock(report),
    ]


def _judge_network(report: HostReport) -> Iterator[Finding]:
    name, taken = report.host.name, report.seen["taken"]
    for port, why in taken.items():
        text = f"port {port} on {name} is taken ({why}): give another --port, or none"
        yield Finding(ERROR, "port", text)
    for peer, why in report.seen["unresolved"].items():
        text = f"{name} cannot resolve '{peer}' ({why}): fix DNS or /etc/hosts there"
        yield Finding(ERROR, "names", text)
    for address, port, why in report.unreached:
        if str(port) not in taken:
            text = f"{name} cannot reach {address}:{port} ({why}): open the workers' ports in the "
            text += "firewall, or name addresses of a network that the hosts share"
            yield Finding(ERROR, "network", text)


def _judge_tensorflow(report: HostReport, needs_tensorflow: bool) -> Iterator[Finding]:
    where = f"{report.host.python} on {report.host.name}"
    problem = version_problem(report.seen["versions"]["tensorflow"], where=where)
    if needs_tensorflow and problem:
        yield Finding(ERROR, "packages", problem)


def _judge_files(report: HostReport, needs_tensorflow: bool) -> Iterator[Finding]:
    name = report.host.name
    for path in report.seen["missing"]:
        text = f"there is no '{path}' on {name}: put it on storage that all hosts share"
        yield Finding(ERROR, "files", text)
    if report.unshared:
        text = f"{name} does not see this machine's '{report.unshared}': give a --run_dir on "
        text += "storage that all hosts share (NFS, or gs://…)"
        # A program of the user's own may not write to the run directory.
        yield Finding(ERROR if needs_tensorflow else WARNING, "run_dir", text)


def _judge_code(report: HostReport) -> Iterator[Finding]:
    if report.host.remote and report.seen["code"] != report.our_code:
        text = f"tenfold's code on {report.host.name} differs from this machine's: install the "
        yield Finding(ERROR, "packages", text + f"same there, under {report.host.python}")


def _judge_resources(report: HostReport) -> Iterator[Finding]:
    name, seen = report.host.name, report.seen
    if seen["disk_free"] < MIN_DISK_BYTES:
        free = format_size(seen["disk_free"])
        text = f"only {free} are free for the run directory on {name}: checkpoints may not fit"
        yield Finding(WARNING, "disk", text + "; free some, or give --run_dir on another disk")
    shm = seen["shm_free"]
    if shm is not None and shm < MIN_SHM_BYTES:
        text = f"only {format_size(shm)} of /dev/shm are free on {name}: raise it"
        yield Finding(WARNING, "memory", text + " (docker run --shm-size=1g)")
    memory, needed = seen["memory_available"], report.workers * WORKER_MEMORY_BYTES
    if memory is not None and memory < needed:
        text = f"{report.workers} workers on {name} need about {format_size(needed)} of memory, "
        text += f"{format_size(memory)} are available: start fewer there"
        yield Finding(WARNING, "memory", text)


def _judge_proxies(report: HostReport) -> Iterator[Finding]:
    if proxies := report.seen["proxies"]:
        text = f"{', '.join(proxies)} is set on {report.host.name}: traffic between workers "
        yield Finding(WARNING, "proxy", text + "bypasses it (no_grpc_proxy is set for them)")


def _judge_clock(report: HostReport) -> Iterator[Finding]:
    """The host read its clock at some moment between question and answer, hence the tolerance."""
    middle = (report.asked_at + report.answered_at) / 2
    tolerance = MAX_CLOCK_SKEW_S + (report.answered_at - report.asked_at) / 2
    skew = report.seen["time"] - middle
    if abs(skew) > tolerance:
        text = f"the clock of {report.host.name} is {skew:+.0f} s off ours: start NTP there"
        yield Finding(WARNING, "clock", text)


def _judge_equality(reports: Sequence[HostReport]) -> list[Finding]:
    found = []
    for package in ("python", *probe.PACKAGES):
        versions = {report.host.name: report.seen["versions"][package] for report in reports}
        if len({_compatible(package, version) for version in versions.values()}) > 1:
            listed = ", ".join(f"{version} on {host}" for host, version in versions.items())
            text = f"{package} differs: {listed}; install the same everywhere"
            found.append(Finding(ERROR, "packages", text))
    return found


def _judge_interfaces(reports: Sequence[HostReport]) -> Iterator[Finding]:
    """Warn of addresses that only this host can reach, or that containers use."""
    if len(reports) < 2:
        return
    for report in reports:
        name, interface = report.host.name, report.seen["interface"]
        # With an address on loopback, a tunnel carries the traffic.
        if _is_inner(interface) and not report.host.address.startswith("127."):
            others = report.seen["interfaces"].items()
            better = ", ".join(f"{k} ({v})" for k, v in others if not _is_inner(k)) or "none"
            text = f"the address of {name} is on its interface {interface}, which other machines "
            text += (
                f"do not reach: give --network_interface or another address; {name} has {better}"
            )
            yield Finding(WARNING, "network", text, host=name)


def _is_inner(interface: str) -> bool:
    return interface.startswith(("lo", "docker", "br-", "virbr", "veth", "cni"))


def _compatible(package: str, version: str | None) -> str | None:
    """The part of a version that must be the same on all hosts: of Python's, two numbers."""
    return ".".join(version.split(".")[:2]) if package == "python" and version else version
