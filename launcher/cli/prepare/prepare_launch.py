"""Turn the flags of `launch` into a `Launch`: every decision made before anything starts."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from tenfold.data.errors import UserError
from tenfold.data.units import parse_duration, plural
from tenfold.launcher.backends.backend_registry import load_backend
from tenfold.launcher.backends.base import Backend, Host
from tenfold.launcher.cli.flags import Arguments, FlagValues
from tenfold.launcher.cli.launch_flags import backend_flag_names
from tenfold.launcher.cli.prepare.prepare_job import device_env, gpus_per_worker, prepare_job
from tenfold.launcher.cli.write_flags import WriteRequest, source_from_flags, write_request
from tenfold.launcher.job.faults import Fault
from tenfold.launcher.job.job_spec import ClusterSpec, JobSpec
from tenfold.launcher.supervisor.fault_injection import check_backend, parse_fault
from tenfold.launcher.supervisor.hosts.host_selection import worker_counts
from tenfold.launcher.supervisor.restarts import RestartPolicy
from tenfold.launcher.supervisor.supervisor import Supervision
from tenfold.launcher.supervisor.watchdog import WatchPolicy
from tenfold.launcher.worker.environment import (
    has_gpu,
    passed_environment,
    remote_worker_defaults,
    worker_defaults,
)

# Slots that are looked through for spare hosts: this machine alone has as many as are asked for.
MAX_FURTHER_SLOTS: Final = 1000


@dataclass(frozen=True)
class Launch:
    """One launch, complete before anything starts; nothing reads flags after it.

    Attributes:
      spec: what every worker runs.
      backend: how commands run on `hosts`.
      hosts: the host of each worker, by worker index.
      first_port: worker N listens on this port + N; None: on ports that are free.
      interface: the network interface over whose addresses workers exchange; "" for those of
        the hosts.
      spares: hosts that stand by, after those of the workers.
      min_workers: the fewest workers that the job may continue with.
      supervision: restarts, time limits, and the worker counts that the job may run with.
      faults: what --inject asks for.
      passed_env: variables from --pass_env. They may be secrets and are written nowhere.
      write_first: how --source becomes the shards of `spec`; None where they exist.
      max_bad_records: damaged records that --on_bad_record=skip may leave out of the shards.
      as_json: print the result as JSON.
      show_tf_logs: show TensorFlow's start-up messages.
    """

    spec: JobSpec
    backend: Backend
    hosts: tuple[Host, ...]
    spares: tuple[Host, ...]
    first_port: int | None
    interface: str
    min_workers: int
    supervision: Supervision
    faults: tuple[Fault, ...]
    passed_env: Mapping[str, str]
    write_first: WriteRequest | None
    max_bad_records: int
    as_json: bool
    show_tf_logs: bool

    @property
    def all_hosts(self) -> tuple[Host, ...]:
        """The hosts of all workers, then those that stand by."""
        return (*self.hosts, *self.spares)

    def choose_cluster(self, hosts: Sequence[Host]) -> ClusterSpec:
        """Return a cluster of `hosts` on ports that are free now."""
        return choose_cluster(
            self.backend, hosts, first_port=self.first_port, interface=self.interface
        )


def choose_cluster(
    backend: Backend, hosts: Sequence[Host], *, first_port: int | None, interface: str = ""
) -> ClusterSpec:
    """Return a cluster of `hosts` on free ports, or on those from `first_port` on.

    Args:
      backend: the back end; opened, where there is an `interface`.
      hosts: the host of each worker.
      first_port: worker N listens on this port + N; None: on ports that are free.
      interface: the interface whose address each host has in the cluster; "" for its own address.

    Raises:
      UserError: a requested port is taken, or a host has no such interface.
    """
    ports = backend.choose_ports(hosts, first_port)
    addresses = {}
    if interface:
        from tenfold.launcher.host_checks.interface_address import addresses_on

        addresses = addresses_on(interface, backend, hosts)
    return ClusterSpec(
        tuple(
            f"{addresses.get(host.name, host.address)}:{port}"
            for host, port in zip(hosts, ports, strict=True)
        )
    )


def prepare_launch(fv: FlagValues, args: Arguments) -> Launch:
    """Turn flags into a launch and check all that can be checked without waiting.

    Raises:
      UserError: a flag, the program, the shards or the back end cannot be used.
    """
    backend, hosts = choose_hosts(fv)
    spec = prepare_job(fv, args, env={**default_variables(hosts), **device_env(fv)})
    spec = replace(spec, gpus_per_worker=gpus_per_worker(fv))
    launch = Launch(
        spec=spec,
        backend=backend,
        hosts=hosts,
        spares=spare_hosts(backend, hosts, fv.spare_hosts),
        first_port=fv.port,
        interface=fv.network_interface,
        min_workers=_min_workers(fv),
        supervision=_supervision(fv, spec),
        faults=_faults(fv, spec, backend),
        passed_env=passed_environment(fv.pass_env, os.environ),
        write_first=write_request(fv) if source_from_flags(fv) else None,
        max_bad_records=fv.max_bad_records,
        as_json=fv.format == "json",
        show_tf_logs=fv.show_tf_logs,
    )
    return launch if launch.write_first else check_shards(launch)


def check_shards(launch: Launch) -> Launch:
    """Check the trainer against its shards; return the launch with its worker counts.

    Called again after `write_first`, which makes the shards.

    Raises:
      UserError: there are no such shards, or the workers cannot share them.
    """
    num_workers, num_lanes = launch.spec.num_workers, None
    if launch.spec.train:
        from tenfold.launcher.cli.prepare.preflight import check_training

        num_lanes = check_training(launch.spec.train, num_workers=num_workers)
    counts = worker_counts(num_workers, launch.min_workers, num_lanes=num_lanes)
    return replace(launch, supervision=replace(launch.supervision, counts=counts))


def choose_hosts(fv: FlagValues) -> tuple[Backend, tuple[Host, ...]]:
    """Return the back end and the host of each worker.

    Raises:
      UserError: there is no such back end, or it has too few hosts.
    """
    if fv.num_workers < 1:
        raise UserError(f"num_workers is {fv.num_workers}: it must be at least 1")
    backend = load_backend(fv.backend, options_of_backend(fv))
    return backend, backend.hosts(fv.num_workers)


def host_notes(launch: Launch) -> tuple[str, ...]:
    """Return what the user should know about flags for hosts that come and go."""
    most, least = len(launch.hosts), launch.min_workers
    notes = []
    if (least < most or launch.spares) and not launch.supervision.restarts.max_restarts:
        notes.append(
            "--max_restarts is 0: a lost host ends the job, and --min_workers and --spare_hosts "
            "only help after a preemption; give --max_restarts=3"
        )
    return tuple(notes)


def spare_hosts(backend: Backend, hosts: Sequence[Host], count: int) -> tuple[Host, ...]:
    """Return all slots of the next `count` hosts after those of the workers.

    Raises:
      UserError: the back end has fewer hosts.
    """
    spares: list[Host] = []
    for host in _further_slots(backend, len(hosts)):
        if host.name in {each.name for each in hosts}:
            continue  # a slot that is not needed, on a host that runs workers
        names = {each.name for each in (*spares, host)}
        if len(names) > count:
            break
        spares.append(host)
    found = len({host.name for host in spares})
    if found < count:
        raise UserError(
            f"--spare_hosts={count} needs {plural(count, 'host')} besides those of the "
            f"{plural(len(hosts), 'worker')}, and there {'is' if found == 1 else 'are'} {found}: "
            "name more hosts, or lower --spare_hosts"
        )
    return tuple(spares)


def _further_slots(backend: Backend, start: int) -> Iterator[Host]:
    """Yield the slots after the first `start`, as far as there are more."""
    for number in range(start + 1, start + 1 + MAX_FURTHER_SLOTS):
        try:
            yield backend.hosts(number)[-1]
        except UserError:
            return


def options_of_backend(fv: FlagValues) -> dict[str, str]:
    """Return the given options of back ends, those of other back ends included."""
    values = {name: fv[name].value for name in backend_flag_names(fv)}
    return {
        name: "true" if value is True else value
        for name, value in values.items()
        if value is not None and value is not False
    }


def default_variables(hosts: Sequence[Host]) -> dict[str, str]:
    """Return the variables that workers on `hosts` get if the user has not set them."""
    if any(host.remote for host in hosts):
        return remote_worker_defaults()
    return worker_defaults(os.environ, num_workers=len(hosts))


def regrow_after_s(fv: FlagValues) -> float:
    """Return the shortest time between two growths in seconds, 0 for never.

    Raises:
      UserError: --regrow_after is no time.
    """
    text = fv.regrow_after.strip().lower()
    if text == "never":
        return 0.0
    try:
        return parse_duration(text, "--regrow_after")
    except UserError as error:
        raise UserError(f"{error}, or never") from error


def _min_workers(fv: FlagValues) -> int:
    min_workers: int = fv.num_workers if fv.min_workers is None else fv.min_workers
    if min_workers > fv.num_workers:
        raise UserError(f"min_workers {min_workers} is above num_workers {fv.num_workers}")
    return min_workers


def _faults(fv: FlagValues, spec: JobSpec, backend: Backend) -> tuple[Fault, ...]:
    faults = tuple(parse_fault(text, num_workers=fv.num_workers) for text in fv.inject)
    check_backend(faults, backend, fv.backend)
    if not spec.train and any(fault.kind == "bad_shard" for fault in faults):
        raise UserError("--inject=bad_shard is for the built-in trainer")
    return faults


def _supervision(fv: FlagValues, spec: JobSpec) -> Supervision:
    return Supervision(
        grace_s=fv.grace,
        restarts=RestartPolicy(fv.max_restarts, fv.max_preemptions),
        watch=WatchPolicy(fv.hang_timeout, fv.rendezvous_timeout),
        regrow_after_s=regrow_after_s(fv),
        preload=bool(spec.train and fv.preload and sys.platform == "linux" and not has_gpu()),
    )
