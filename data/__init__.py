"""Planning, writing, manifests and reading of sharded data sets.

Every name of `__all__` is imported on first use, so that importing this package loads neither
TensorFlow nor numpy.
"""

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tenfold.data.errors import JobError, UserError
    from tenfold.data.format.manifest import Feature, Manifest, ShardInfo, Split
    from tenfold.data.planning.lanes import Lane, WorkerShards, assign_lanes
    from tenfold.data.planning.layout import LayoutPolicy, ShardLayout, SourceStats
    from tenfold.data.planning.plan_layout import plan_layout
    from tenfold.data.reading.dataset import (
        evaluation_dataset,
        steps_per_epoch,
        training_dataset,
        worker_dataset,
    )
    from tenfold.data.reading.decoding.decoders import GraphDecoder, PythonDecoder
    from tenfold.data.reading.feeding.feed_options import FeedOptions
    from tenfold.data.reading.locating.read_errors import explain_errors
    from tenfold.data.reading.read_options import Position, ReadOptions, WorkerPlace
    from tenfold.data.reading.receipts import Receipt, epoch_receipt
    from tenfold.data.sources.base import Encoded, Source, SourceOptions, UnusableRecord
    from tenfold.data.storage.cache_options import CacheOptions
    from tenfold.data.storage.read_manifest import read_manifest
    from tenfold.data.transforms.base import DecodedImage, RecordSeed, Transform
    from tenfold.data.writing.write_shards import WriteOptions, WriteResult, write_shards

# The module that defines each public name.
_MODULES: Final = {
    "CacheOptions": "storage.cache_options",
    "DecodedImage": "transforms.base",
    "Encoded": "sources.base",
    "Feature": "format.manifest",
    "FeedOptions": "reading.feeding.feed_options",
    "GraphDecoder": "reading.decoding.decoders",
    "JobError": "errors",
    "Lane": "planning.lanes",
    "LayoutPolicy": "planning.layout",
    "Manifest": "format.manifest",
    "Position": "reading.read_options",
    "PythonDecoder": "reading.decoding.decoders",
    "ReadOptions": "reading.read_options",
    "Receipt": "reading.receipts",
    "RecordSeed": "transforms.base",
    "ShardInfo": "format.manifest",
    "ShardLayout": "planning.layout",
    "Source": "sources.base",
    "SourceOptions": "sources.base",
    "SourceStats": "planning.layout",
    "Split": "format.manifest",
    "Transform": "transforms.base",
    "UnusableRecord": "sources.base",
    "UserError": "errors",
    "WorkerPlace": "reading.read_options",
    "WorkerShards": "planning.lanes",
    "WriteOptions": "writing.write_shards",
    "WriteResult": "writing.write_shards",
    "assign_lanes": "planning.lanes",
    "epoch_receipt": "reading.receipts",
    "evaluation_dataset": "reading.dataset",
    "explain_errors": "reading.locating.read_errors",
    "plan_layout": "planning.plan_layout",
    "read_manifest": "storage.read_manifest",
    "steps_per_epoch": "reading.dataset",
    "training_dataset": "reading.dataset",
    "worker_dataset": "reading.dataset",
    "write_shards": "writing.write_shards",
}

__all__ = [
    "CacheOptions",
    "DecodedImage",
    "Encoded",
    "Feature",
    "FeedOptions",
    "GraphDecoder",
    "JobError",
    "Lane",
    "LayoutPolicy",
    "Manifest",
    "Position",
    "PythonDecoder",
    "ReadOptions",
    "Receipt",
    "RecordSeed",
    "ShardInfo",
    "ShardLayout",
    "Source",
    "SourceOptions",
    "SourceStats",
    "Split",
    "Transform",
    "UnusableRecord",
    "UserError",
    "WorkerPlace",
    "WorkerShards",
    "WriteOptions",
    "WriteResult",
    "assign_lanes",
    "epoch_receipt",
    "evaluation_dataset",
    "explain_errors",
    "plan_layout",
    "read_manifest",
    "steps_per_epoch",
    "training_dataset",
    "worker_dataset",
    "write_shards",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name not in _MODULES:
        raise AttributeError(f"module 'tenfold.data' has no attribute '{name}'")
    return getattr(importlib.import_module(f"tenfold.data.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    """List the public names, for completion."""
    return __all__
