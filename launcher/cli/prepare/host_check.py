"""Check the hosts of a launch, for `launch` and `doctor`."""

from typing import Final

from tenfold.data.errors import UserError
from tenfold.data.storage.folder import is_url
from tenfold.launcher.cli.prepare.prepare_launch import Launch
from tenfold.launcher.display.view import View
from tenfold.launcher.host_checks.finding import ERROR
from tenfold.launcher.host_checks.findings import judge_hosts
from tenfold.launcher.host_checks.look import HostReport, look_at_hosts
from tenfold.launcher.job.remote_run_dir import disk_of

MAX_PORT_RETRIES: Final = 5
GPUS_VARIABLE: Final = "CUDA_VISIBLE_DEVICES"


def look_at(launch: Launch) -> tuple[HostReport, ...]:
    """Return a report of each host. Ports that turn out to be taken are picked again.

    With --port the user has chosen the ports, so that taken ones stay in the report.
    """
    reports = _look_once(launch)
    for _ in range(MAX_PORT_RETRIES):
        is_taken = any(report.seen.get("taken") for report in reports)
        if launch.first_port is not None or not is_taken:
            break
        reports = _look_once(launch)
    return reports


def _look_once(launch: Launch) -> tuple[HostReport, ...]:
    spec = launch.spec
    shards = spec.train.folders if spec.train else ()
    hosts = launch.all_hosts
    any_remote = any(host.remote for host in hosts)
    return look_at_hosts(
        launch.backend,
        hosts,
        launch.choose_cluster(hosts).workers,
        folder=disk_of(spec.run_dir),
        paths=[spec.cwd, *(path for path in shards if not is_url(path))],
        shared=spec.run_dir if any_remote and not is_url(spec.run_dir) else "",
        cuda_visible_devices=launch.passed_env.get(GPUS_VARIABLE),
    )


def check_hosts(launch: Launch, view: View) -> None:
    """Check all hosts before a worker starts; warnings go to the view.

    Raises:
      UserError: the job cannot run on a host.
    """
    reports = look_at(launch)
    findings = judge_hosts(
        reports,
        needs_tensorflow=bool(launch.spec.train),
        gpus_per_worker=launch.spec.gpus_per_worker,
    )
    for finding in findings:
        if finding.level == ERROR:
            raise UserError(finding.text)
        view.note(f"{finding.level}: {finding.text}")
