"""Tenfold: plan, shard, launch and train; multi-host distributed training for TensorFlow."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tenfold.launcher.script import Worker

__version__ = "0.1.0"


def worker() -> "Worker":
    """Returns the place of this process in the job that `tenfold launch` runs (see
    `tenfold.launcher.script`): its index, the run directory, and a way to report steps.
    """
    from tenfold.launcher import script

    return script.worker()
