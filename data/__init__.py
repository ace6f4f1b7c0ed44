"""Planning, writing, manifests and reading of sharded data sets."""

import importlib
from typing import Any

# What a script of the user's own needs; imported on use, because it imports TensorFlow.
_PUBLIC = {
    "worker_dataset": "tenfold.data.read",
    "steps_per_epoch": "tenfold.data.read",
    "epoch_receipt": "tenfold.data.receipt",
    "write_shards": "tenfold.data.write",
    "read_manifest": "tenfold.data.storage",
}


def __getattr__(name: str) -> Any:
    """Returns what `name` names in the module that has it."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'tenfold.data' has no attribute '{name}'")
    return getattr(importlib.import_module(_PUBLIC[name]), name)
