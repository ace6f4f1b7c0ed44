"""``tenfold doctor``: checks this machine and the hosts of a job before a launch."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from tenfold.data.units import format_size
from tenfold.launcher.cli import launch_flags
from tenfold.launcher.cli.flags import Arguments, FlagValues
from tenfold.launcher.cli.prepare.host_check import look_at
from tenfold.launcher.cli.prepare.prepare_launch import (
    choose_cluster,
    choose_hosts,
    prepare_launch,
    spare_hosts,
)
from tenfold.launcher.host_checks.findings import ERROR, Finding, judge_hosts
from tenfold.launcher.host_checks.look import HostReport, look_at_hosts

MOST_USED: Final = launch_flags.MOST_USED

# TensorFlow's server binds to all interfaces, whatever address TF_CONFIG gives a worker.
EXPOSED: Final = (
    "workers listen on all network interfaces, and whoever connects can run code in them: use "
    "--backend=netns, or a firewall ('Security' in docs/shell.md)"
)

USAGE: Final = "[the flags of launch] [-- program args…]"


def define_flags(fv: FlagValues) -> None:
    """Define the flags of doctor: those of launch, but --dry_run: it starts nothing anyway."""
    launch_flags.define_flags(fv)
    delattr(fv, "dry_run")


def define_argv_flags(fv: FlagValues, argv: Sequence[str]) -> None:
    """Define the flags of the back end that `argv` names."""
    launch_flags.define_backend_flags(fv, argv)


def run(fv: FlagValues, args: Arguments) -> int:
    """Print what the hosts report and what is wrong; return 1 where a launch would fail."""
    Arguments(args.positional).expect_none()
    if args.program or fv.shards:
        launch = prepare_launch(fv, args)
        with launch.backend.opened(launch.all_hosts):
            reports = look_at(launch)
        trains = bool(launch.spec.train)
        findings = judge_hosts(reports, needs_tensorflow=trains)
        shared_by = launch.spec.num_workers if trains else None
    else:
        findings = judge_hosts(reports := _look_at_hosts_only(fv), needs_tensorflow=True)
        shared_by = None
    notes = () if fv.backend == "netns" else (EXPOSED,)
    show = _as_json if fv.format == "json" else _as_text
    print(show(reports, findings, notes, shared_by))
    return int(_is_bad(findings))


def _look_at_hosts_only(fv: FlagValues) -> tuple[HostReport, ...]:
    """Return the reports of the hosts where nothing to run is given."""
    backend, hosts = choose_hosts(fv)
    hosts += spare_hosts(backend, hosts, fv.spare_hosts)
    with backend.opened(hosts):
        workers = choose_cluster(backend, hosts, first_port=fv.port).workers
        return look_at_hosts(backend, hosts, workers, folder=".")


def _is_bad(findings: Sequence[Finding]) -> bool:
    return any(finding.level == ERROR for finding in findings)


def _as_text(
    reports: Sequence[HostReport],
    findings: Sequence[Finding],
    notes: Sequence[str],
    shared_by: int | None,
) -> str:
    lines = [_describe(report) for report in reports]
    if shared_by is not None:
        lines.append(f"{shared_by} workers can share these shards and this batch")
    lines += [f"note: {note}" for note in notes]
    lines += [f"{finding.level}: {finding.text}" for finding in findings]
    return "\n".join(lines if findings else [*lines, "nothing is wrong"])


def _as_json(
    reports: Sequence[HostReport],
    findings: Sequence[Finding],
    notes: Sequence[str],
    shared_by: int | None,
) -> str:
    document = {
        "can_launch": not _is_bad(findings),
        "shards_shared_by": shared_by,
        "hosts": [_host_json(report, findings) for report in reports],
        "findings": [asdict(finding) for finding in findings],
        "notes": list(notes),
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
        "gpus": seen.get("gpus"),
    }


def _describe(report: HostReport) -> str:
    if report.failure:
        return f"{report.host.name}: no report"
    seen = report.seen
    versions = ", ".join(f"{name} {version}" for name, version in seen["versions"].items())
    memory = seen["memory_available"]
    space = f"{format_size(seen['disk_free'])} of disk"
    space += f", {format_size(memory)} of memory" if memory else ""
    workers = f"{report.workers} worker" + ("s" if report.workers > 1 else "")
    return f"{report.host.name} ({workers}): {versions}; {space} free; {seen['gpus']} GPUs"
