"""Planning, writing, manifests and reading of sharded data sets."""

import importlib
from typing import Any

# What a script of the user's own needs; imported on use, because it imports TensorFlow.
_PUBLIC = {
    "worker_dataset": "tenfold.data.reading.dataset",
    "steps_per_epoch": "tenfold.data.reading.dataset",
    "epoch_receipt": "tenfold.data.reading.receipts",
    "write_shards": "tenfold.data.writing.write_shards",
    "WriteOptions": "tenfold.data.writing.write_shards",
    "WriteResult": "tenfold.data.writing.write_shards",
    "LayoutPolicy": "tenfold.data.planning.layout",
    "plan_layout": "tenfold.data.planning.plan_layout",
    "SourceOptions": "tenfold.data.sources.features",
    "Transform": "tenfold.data.transforms.base",
    "RecordSeed": "tenfold.data.transforms.base",
    "UnusableRecord": "tenfold.data.sources.base",
    "UserError": "tenfold.data.errors",
    "JobError": "tenfold.data.errors",
    "read_manifest": "tenfold.data.storage.read_manifest",
}


def __getattr__(name: str) -> Any:
    """Returns what `name` names in the module that has it."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'tenfold.data' has no attribute '{name}'")
    return getattr(importlib.import_module(_PUBLIC[name]), name)
