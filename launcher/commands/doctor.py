"""``tenfold doctor``: checks this machine and the hosts of a job before a launch."""

from typing import Final

from tenfold.data.sizes import format_size
from tenfold.launcher import launch_flags
from tenfold.launcher.arguments import Arguments
from tenfold.launcher.checkup import ERROR, HostReport, judge_hosts, look_at_hosts
from tenfold.launcher.commands.launch import look_at
from tenfold.launcher.flags import FlagValues

USAGE: Final = "[the flags of launch] [-- program args…]"


def define_flags(fv: FlagValues) -> None:
    """Defines the flags of doctor: those of launch."""
    launch_flags.define_flags(fv)


def run(fv: FlagValues, args: Arguments) -> int:
    """Prints what was looked at and what is wrong; returns 1 where a launch would fail."""
    what = launch_flags.prepare(fv, args) if args.program or fv.shards else None
    backend, hosts = (what.backend, what.hosts) if what else launch_flags.choose_hosts(fv)
    with backend.opened(hosts):
        if what:
            reports = look_at(what)
        else:
            addresses = launch_flags.choose_cluster(backend, hosts, first_port=fv.port).workers
            reports = look_at_hosts(backend, hosts, addresses, folder=".")
    for report in reports:
        print(_describe(report))
    if what and what.spec.train:
        print(f"{fv.num_workers} workers can share these shards and this batch")
    findings = judge_hosts(reports, needs_tensorflow=what is None or bool(what.spec.train))
    for finding in findings:
        print(f"{finding.level}: {finding.text}")
    if not findings:
        print("nothing is wrong")
    return int(any(finding.level == ERROR for finding in findings))


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
