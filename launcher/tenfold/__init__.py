"""Tenfold: plan, shard, launch and train; multi-host distributed training for TensorFlow."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tenfold.launcher.python_api import Run, launch, plan, write
    from tenfold.launcher.worker.script import Worker

__version__ = "0.1.0"
__all__ = ["Run", "launch", "plan", "worker", "write"]

_NOTEBOOK = ("Run", "launch", "plan", "write")


def __getattr__(name: str) -> Any:
    """Returns what `tenfold.launcher.python_api` has of this name; imported on use."""
    if name not in _NOTEBOOK:
        raise AttributeError(f"module 'tenfold' has no attribute '{name}'")
    from tenfold.launcher import python_api as notebook

    return getattr(notebook, name)


def worker() -> "Worker":
    """Returns the place of this process in the job that `tenfold launch` runs (see
    `tenfold.launcher.worker.script`): its index, the run directory, and a way to report steps.
    """
    from tenfold.launcher.worker import script

    return script.worker()
