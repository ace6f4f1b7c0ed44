"""How a worker reads a split: the shards, its place among the workers, the options."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf

from tenfold.data.errors import UserError
from tenfold.data.format.manifest import Manifest, ShardInfo
from tenfold.data.planning.lanes import WorkerShards, assign_lanes
from tenfold.data.reading.decoding.augment_options import NO_AUGMENT, Augment, parse_augment
from tenfold.data.reading.decoding.decoders import AUTO, BatchDecoder, make_decoder
from tenfold.data.reading.graph_records import (
    InputSpec,
    input_spec,
)
from tenfold.data.storage.folder import is_url
from tenfold.data.storage.open_folder import open_folder
from tenfold.data.storage.prefetch import ShardPrefetcher, needs_prefetch
from tenfold.data.storage.read_manifest import read_manifest
from tenfold.data.storage.shard_cache import DEFAULT_CACHE, CacheOptions


@dataclass(frozen=True)
class ReadConfig:
    """How a worker reads a split of the shards in `folder`.

    `replicas` is the number of the worker's own replicas: each gets its part of the batch
    in turn. `threads` is how many batches are decoded side by side; 0 takes
    `available_threads`. `moved` has the paths of shards that lie elsewhere, by name;
    `cache` says how shards on remote storage come here.
    """

    folder: str
    manifest: Manifest
    split: str
    global_batch_size: int
    num_workers: int
    worker: int
    spec: InputSpec
    seed: int = 0
    replicas: int = 1
    shuffle_buffer_bytes: int = 256 * 10**6
    threads: int = 0
    decoder: str = AUTO
    augment: Augment = NO_AUGMENT
    moved: Mapping[str, str] = field(default_factory=dict)
    cache: CacheOptions = DEFAULT_CACHE

    def __post_init__(self) -> None:
        if not 0 <= self.worker < self.num_workers:
            raise UserError(f"worker index {self.worker} is not below {self.num_workers} workers")
        if self.global_batch_size % (self.num_workers * self.replicas):
            raise UserError(
                f"global_batch_size {self.global_batch_size} is not a multiple of "
                f"{self.num_workers} workers × {self.replicas} replicas"
            )

    @property
    def replica_batch(self) -> int:
        """Records that one replica gets a step."""
        return self.global_batch_size // (self.num_workers * self.replicas)

    @property
    def parallel_batches(self) -> int:
        """How many batches are decoded side by side."""
        return self.threads or available_threads()

    def shards(self, *, drop_remainder: bool) -> WorkerShards:
        """Returns this worker's lanes and the steps of an epoch."""
        return assign_lanes(
            self.manifest,
            self.split,
            num_workers=self.num_workers,
            global_batch_size=self.global_batch_size,
            drop_remainder=drop_remainder,
        )[self.worker]

    def path_of(self, shard: str) -> str:
        """Returns the path of the shard called `shard`."""
        return self.moved.get(shard) or f"{self.folder}/{shard}"

    def prefetcher(
        self, shards: Sequence[ShardInfo], plan: Iterator[str]
    ) -> ShardPrefetcher | None:
        """Returns what brings `shards` here; `plan` names them in their order of use."""
        remote = {self.path_of(shard.name): shard for shard in shards}
        remote = {path: shard for path, shard in remote.items() if is_url(path)}
        # Those of a local folder may have moved to a remote one.
        if not any(needs_prefetch(path, self.cache) for path in remote):
            return None
        paths = (path for path in map(self.path_of, plan) if path in remote)
        return ShardPrefetcher(remote, paths, self.cache)

    def decode(self) -> BatchDecoder | None:
        """Returns the decoder; None where there are no images."""
        shape = self.spec.image_shape
        return None if shape is None else make_decoder(self.decoder, shape)


def read_config(
    shards: str, *, image_size: tuple[int, int] | None, augment: str, **others: Any
) -> ReadConfig:
    """Returns how to read the shards in a folder; `others` are further fields of ReadConfig.

    Raises:
      UserError: the shards or the options do not fit.
    """
    manifest = read_manifest(shards)
    return ReadConfig(
        folder=open_folder(shards).path,
        manifest=manifest,
        spec=input_spec(manifest, image_size),
        augment=parse_augment(augment),
        **others,
    )


def available_threads() -> int:
    """Returns how many threads this process should decode with.

    TF_NUM_INTRAOP_THREADS where it is set (the local back end sets it to this worker's share
    of the machine), else the cores that the process may run on.
    """
    share = os.environ.get("TF_NUM_INTRAOP_THREADS", "")
    if share.isdecimal() and int(share) > 0:
        return int(share)
    return (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )


def reading_options(threads: int) -> tf.data.Options:
    """Returns the options that every pipeline of ours runs with.

    Autotune is off because it can stall for seconds when an iterator ends; auto-sharding is
    off because each worker's files are already its own.
    """
    options = tf.data.Options()
    options.deterministic = True
    options.autotune.enabled = False
    options.threading.private_threadpool_size = threads
    options.threading.max_intra_op_parallelism = 1
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return options
