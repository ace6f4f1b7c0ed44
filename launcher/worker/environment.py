"""What a worker's environment gets where the user has not set it."""

import glob
from collections.abc import Mapping, Sequence
from typing import Final

from tenfold.data.errors import UserError
from tenfold.data.runtime.process_pool import usable_cpus

_QUIET: Final = {
    "TF_CPP_MIN_LOG_LEVEL": "1",
    "PYTHONUNBUFFERED": "1",
    # SIGABRT then prints the Python stack of every thread: the watchdog's last question.
    "PYTHONFAULTHANDLER": "1",
}

_PROXIES: Final = ("grpc_proxy", "https_proxy", "http_proxy")


def worker_defaults(
    environ: Mapping[str, str], *, num_workers: int, cores: int | None = None
) -> dict[str, str]:
    """Returns the additions for workers that share this machine's `cores`."""
    threads = max(1, (cores or usable_cpus()) // num_workers)
    wanted = {
        **_QUIET,
        "TF_NUM_INTRAOP_THREADS": str(threads),
        # With one such thread the next batch is not made ready while a step computes.
        "TF_NUM_INTEROP_THREADS": str(max(2, threads)),
    }
    return {name: value for name, value in wanted.items() if name not in environ}


def remote_worker_defaults() -> dict[str, str]:
    """Returns the additions for workers on machines of their own, cores and environment."""
    return dict(_QUIET)


def passed_environment(names: Sequence[str], environ: Mapping[str, str]) -> dict[str, str]:
    """Returns the variables `names` of `environ`, which all workers are to get.

    Raises:
      UserError: one is not set.
    """
    for name in names:
        if name not in environ:
            raise UserError(f"--pass_env={name}: there is no such variable here: export it first")
    return {name: environ[name] for name in names}


def has_gpu() -> bool:
    """Says whether this machine has an NVIDIA GPU."""
    return bool(glob.glob("/proc/driver/nvidia/gpus/*"))


def no_proxy_for(environ: Mapping[str, str], addresses: tuple[str, ...]) -> dict[str, str]:
    """Returns what keeps a proxy of the environment out of the workers' own gRPC traffic."""
    if not any(environ.get(name) or environ.get(name.upper()) for name in _PROXIES):
        return {}
    known = environ.get("no_grpc_proxy") or environ.get("no_proxy") or environ.get("NO_PROXY", "")
    hosts = sorted({address.rpartition(":")[0] for address in addresses})
    return {"no_grpc_proxy": ",".join([*filter(None, [known]), *hosts])}
