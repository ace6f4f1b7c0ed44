"""Default environment variables of a worker; variables that the user has set win."""

import os
from collections.abc import Mapping, Sequence
from typing import Final

from tenfold.data.errors import UserError
from tenfold.data.runtime.cpus import usable_cpus
from tenfold.launcher.worker.agent import visible_gpus

_QUIET: Final = {
    "TF_CPP_MIN_LOG_LEVEL": "1",
    "PYTHONUNBUFFERED": "1",
    # Makes SIGABRT, which the watchdog sends, print the Python stack of every thread.
    "PYTHONFAULTHANDLER": "1",
}

_PROXIES: Final = ("grpc_proxy", "https_proxy", "http_proxy")


def worker_defaults(
    environ: Mapping[str, str], *, num_workers: int, cores: int | None = None
) -> dict[str, str]:
    """Return the variables to add for `num_workers` workers that share this machine's `cores`."""
    threads = max(1, (cores or usable_cpus()) // num_workers)
    wanted = {
        **_QUIET,
        "TF_NUM_INTRAOP_THREADS": str(threads),
        # A single such thread would not prepare the next batch while a step computes.
        "TF_NUM_INTEROP_THREADS": str(max(2, threads)),
    }
    return {name: value for name, value in wanted.items() if name not in environ}


def remote_worker_defaults() -> dict[str, str]:
    """Return the variables to add for workers that each have a machine of their own."""
    return dict(_QUIET)


def passed_environment(names: Sequence[str], environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables `names` of `environ`, which --pass_env gives to all workers.

    Raises:
      UserError: a variable is not set.
    """
    for name in names:
        if name not in environ:
            raise UserError(f"--pass_env={name}: this variable is not set: export it first")
    return {name: environ[name] for name in names}


def has_gpu() -> bool:
    """Whether this process could use an NVIDIA GPU."""
    return bool(visible_gpus(os.environ))


def no_proxy_for(environ: Mapping[str, str], addresses: tuple[str, ...]) -> dict[str, str]:
    """Return the variables that keep a proxy out of the workers' own gRPC traffic."""
    if not any(environ.get(name) or environ.get(name.upper()) for name in _PROXIES):
        return {}
    known = environ.get("no_grpc_proxy") or environ.get("no_proxy") or environ.get("NO_PROXY", "")
    hosts = sorted({address.rpartition(":")[0] for address in addresses})
    return {"no_grpc_proxy": ",".join([*filter(None, [known]), *hosts])}
