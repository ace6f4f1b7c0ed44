"""``tenfold doctor``: checks this machine and the hosts of a job before a launch."""

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from absl import flags

from tenfold.data.runtime.tensorflow_version import version_problem
from tenfold.data.units import format_size, plural
from tenfold.launcher.backends.base import Backend, Host
from tenfold.launcher.cli import launch_flags
from tenfold.launcher.cli.flags import Arguments, FlagValues
from tenfold.launcher.cli.prepare.exchange_check import AllReduceTime, check_exchange
from tenfold.launcher.cli.prepare.host_check import look_at
from tenfold.launcher.cli.prepare.prepare_job import device_env, gpus_per_worker
from tenfold.launcher.cli.prepare.prepare_launch import (
    choose_cluster,
    choose_hosts,
    default_variables,
    prepare_launch,
    spare_hosts,
)
from tenfold.launcher.host_checks.finding import ERROR, Finding
from tenfold.launcher.host_checks.findings import judge_hosts
from tenfold.launcher.host_checks.look import HostReport, look_at_hosts
from tenfold.launcher.job.job_spec import ClusterSpec, JobSpec
from tenfold.launcher.worker.environment import passed_environment

MOST_USED: Final = launch_flags.MOST_USED

# TensorFlow's server binds to all interfaces, whatever address TF_CONFIG gives a worker. Agents
# close the ports of workers whose address is on loopback.
EXPOSED: Final = (
    "the workers' ports are open on all network interfaces, and what they send is neither "
    "encrypted nor authenticated: whoever reaches a port can run code in the worker: use {remedy} "
    "('Security' in docs/{page}.md)"
)
_REMEDIES: Final = {"ssh": "--tunnel, or a firewall", "slurm": "a network of the job's own"}

USAGE: Final = "[the flags of launch] [-- program args…]"


def define_flags(fv: FlagValues) -> None:
    """Define the flags of doctor: those of launch, but --dry_run: it starts no job anyway."""
    launch_flags.define_flags(fv)
    delattr(fv, "dry_run")
    with fv.group("Devices and network"):
        flags.DEFINE_bool(
            "exchange", True, "have several workers exchange data for two seconds, over the "
            "addresses that a job would use", flag_values=fv,
        )  # fmt: skip


def define_argv_flags(fv: FlagValues, argv: Sequence[str]) -> None:
    """Define the flags of the back end that `argv` names."""
    launch_flags.define_backend_flags(fv, argv)


def run(fv: FlagValues, args: Arguments) -> int:
    """Print what the hosts report and what is wrong; return 1 where a launch would fail."""
    Arguments(args.positional).expect_none()
    diagnosis = _examine_job(fv, args) if args.program or fv.shards else _examine_hosts(fv)
    print(_as_json(diagnosis) if fv.format == "json" else _as_text(diagnosis))
    return int(_is_bad(diagnosis.findings))


@dataclass(frozen=True)
class Diagnosis:
    """What `doctor` has found.

    Attributes:
      reports: the reports of the hosts.
      findings: the problems, errors first.
      notes: what everybody should know.
      shared_by: the number of workers that can share the shards; None without shards.
      exchange: what an exchange between the workers takes; None where none was made.
    """

    reports: Sequence[HostReport]
    findings: Sequence[Finding]
    notes: Sequence[str]
    shared_by: int | None
    exchange: AllReduceTime | None


def _examine_job(fv: FlagValues, args: Arguments) -> Diagnosis:
    launch = prepare_launch(fv, args)
    trains = bool(launch.spec.train)
    with launch.backend.opened(launch.all_hosts):
        return _examine(
            fv, launch.backend, launch.hosts, launch.choose_cluster, launch.spec,
            reports=look_at(launch), needs_tensorflow=trains,
            shared_by=launch.spec.num_workers if trains else None,
        )  # fmt: skip


def _examine_hosts(fv: FlagValues) -> Diagnosis:
    """Examine the hosts where nothing to run is given."""
    backend, hosts = choose_hosts(fv)
    all_hosts = (*hosts, *spare_hosts(backend, hosts, fv.spare_hosts))
    env = {**default_variables(hosts), **device_env(fv)}
    spec = JobSpec((), len(hosts), "", env=env, gpus_per_worker=gpus_per_worker(fv))

    def choose(among: Sequence[Host]) -> ClusterSpec:
        return choose_cluster(backend, among, first_port=fv.port, interface=fv.network_interface)

    with backend.opened(all_hosts):
        reports = look_at_hosts(backend, all_hosts, choose(all_hosts).workers, folder=".")
        return _examine(fv, backend, hosts, choose, spec, reports=reports, needs_tensorflow=True)


def _examine(
    fv: FlagValues,
    backend: Backend,
    hosts: Sequence[Host],
    choose: Callable[[Sequence[Host]], ClusterSpec],
    spec: JobSpec,
    *,
    reports: Sequence[HostReport],
    needs_tensorflow: bool,
    shared_by: int | None = None,
) -> Diagnosis:
    """Judge the reports; if nothing is wrong so far, have the workers exchange data."""
    findings = judge_hosts(
        reports, needs_tensorflow=needs_tensorflow, gpus_per_worker=spec.gpus_per_worker
    )
    have_tensorflow = all(
        report.seen and not version_problem(report.seen["versions"]["tensorflow"], where="")
        for report in reports
    )
    exchange = None
    if fv.exchange and len(hosts) > 1 and have_tensorflow and not _is_bad(findings):
        passed_env = passed_environment(fv.pass_env, os.environ)
        result = check_exchange(backend, hosts, choose(hosts), spec, passed_env=passed_env)
        if isinstance(result, Finding):
            findings = (result, *findings)
        else:
            exchange = result
    return Diagnosis(reports, findings, _exposure(fv, reports), shared_by, exchange)


def _exposure(fv: FlagValues, reports: Sequence[HostReport]) -> tuple[str, ...]:
    """Return a note if other machines can reach the workers' ports."""
    on_loopback = all(report.seen.get("interface") == "lo" for report in reports)
    if fv.backend == "netns" or (on_loopback and sys.platform == "linux"):
        return ()
    page = fv.backend if fv.backend in _REMEDIES else "shell"
    return (EXPOSED.format(remedy=_REMEDIES.get(fv.backend, "a firewall"), page=page),)


def _is_bad(findings: Sequence[Finding]) -> bool:
    return any(finding.level == ERROR for finding in findings)


def _as_text(found: Diagnosis) -> str:
    lines = [_describe(report) for report in found.reports]
    if found.shared_by is not None:
        lines.append(f"{found.shared_by} workers can share these shards and this batch")
    if found.exchange is not None:
        lines.append(found.exchange.sentence())
    lines += [f"note: {note}" for note in found.notes]
    lines += [f"{finding.level}: {finding.text}" for finding in found.findings]
    return "\n".join(lines if found.findings else [*lines, "nothing is wrong"])


def _as_json(found: Diagnosis) -> str:
    exchange = found.exchange
    document = {
        "can_launch": not _is_bad(found.findings),
        "shards_shared_by": found.shared_by,
        "hosts": [_host_json(report, found.findings) for report in found.reports],
        "all_reduce": {**asdict(exchange), "bits_per_s": exchange.bits_per_s}
        if exchange
        else None,
        "findings": [asdict(finding) for finding in found.findings],
        "notes": list(found.notes),
    }
    return json.dumps(document, indent=1, ensure_ascii=False)


def _host_json(report: HostReport, findings: Sequence[Finding]) -> dict[str, Any]:
    """Return the report of a host as JSON; nulls where the host did not answer."""
    seen, name = report.seen, report.host.name
    levels = [finding.level for finding in findings if finding.host == name]
    return {
        "name": name,
        "outcome": levels[0] if levels else "fine",  # errors come first
        "workers": report.workers,
        "ports": report.ports,
        "versions": seen.get("versions"),
        "disk_free_bytes": seen.get("disk_free"),
        "memory_available_bytes": seen.get("memory_available"),
        "gpus": len(seen["gpus"]["names"]) if seen else None,
        "gpu_driver": (seen["gpus"]["driver"] or None) if seen else None,
        "network_interface": seen.get("interface"),
    }


def _describe(report: HostReport) -> str:
    if report.failure:
        return f"{report.host.name}: no report"
    seen = report.seen
    versions = ", ".join(f"{name} {version}" for name, version in seen["versions"].items())
    memory = seen["memory_available"]
    space = f"{format_size(seen['disk_free'])} of disk"
    space += f", {format_size(memory)} of memory" if memory else ""
    workers = plural(report.workers, "worker")
    names, driver = seen["gpus"]["names"], seen["gpus"]["driver"]
    gpus = plural(len(names), "GPU") + (f" (driver {driver})" if driver else "")
    return f"{report.host.name} ({workers}): {versions}; {space} free; {gpus}"
