"""Launching and supervising jobs. Published here: the values and protocols of back ends."""

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tenfold.launcher.backends.base import (
        Backend,
        FaultyHosts,
        Host,
        ListedHosts,
        Option,
        Submission,
        Submitter,
    )
    from tenfold.launcher.backends.local import LocalBackend
    from tenfold.launcher.job.job_spec import HostCommand

__all__ = [
    "Backend",
    "FaultyHosts",
    "Host",
    "HostCommand",
    "ListedHosts",
    "LocalBackend",
    "Option",
    "Submission",
    "Submitter",
]

# Imported on use: every process of a job imports this package.
_MODULES: Final = {
    "HostCommand": "tenfold.launcher.job.job_spec",
    "LocalBackend": "tenfold.launcher.backends.local",
}


def __getattr__(name: str) -> Any:
    """Return a published name, imported on first use."""
    if name not in __all__:
        raise AttributeError(f"module 'tenfold.launcher' has no attribute '{name}'")
    module = _MODULES.get(name, "tenfold.launcher.backends.base")
    return getattr(importlib.import_module(module), name)
