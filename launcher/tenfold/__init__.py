"""Tenfold: plan, shard, launch and train; multi-host distributed training for TensorFlow."""

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tenfold.launcher.python_api import Plan, Run, Written, launch, plan, write
    from tenfold.launcher.worker.script import Worker, worker

__version__ = "0.1.0"
__all__ = ["Plan", "Run", "Worker", "Written", "launch", "plan", "worker", "write"]

_API: Final = "tenfold.launcher.python_api"
_SCRIPT: Final = "tenfold.launcher.worker.script"
# Imported on use: a worker's program needs none of what plans, writes and launches.
_MODULES: Final = {
    "Plan": _API,
    "Run": _API,
    "Worker": _SCRIPT,
    "Written": _API,
    "launch": _API,
    "plan": _API,
    "worker": _SCRIPT,
    "write": _API,
}


def __getattr__(name: str) -> Any:
    """Return a published name, imported on first use."""
    if name not in _MODULES:
        raise AttributeError(f"module 'tenfold' has no attribute '{name}'")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
