"""The batches of one worker: its records in their order, parsed, decoded and fingerprinted.

Whole batches of raw records are parsed and decoded at once, as many batches side by side as
there are threads. Memory: the shuffle buffers (`shuffle_buffer_bytes` over all lanes of all
workers), and (threads + replicas + 1) batches.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import tensorflow as tf

from tenfold.data.augment import NO_AUGMENT, Augment
from tenfold.data.cache import CACHE, CacheOptions
from tenfold.data.decode import AUTO, BatchDecoder, make_decoder
from tenfold.data.errors import UserError
from tenfold.data.lanes import WorkerShards, assign_lanes
from tenfold.data.manifest import LABEL, Manifest, ShardInfo
from tenfold.data.order import (
    BEGINNING,
    Position,
    ShuffleOrder,
    lane_buffer_records,
    ordered_records,
    plain_graph,
    reading_plan,
    shuffled_records,
)
from tenfold.data.parse import InputSpec, batch_parser, empty_batch, fingerprint, zero
from tenfold.data.staging import Stager, needs_staging
from tenfold.data.storage import is_url
from tenfold.data.views import draw_views

# What a batch holds besides its features: each record's weight (evaluation only) and
# fingerprint (0 for no record), and the seconds that parsing and decoding it took.
WEIGHT: Final = "weight"
FINGERPRINT: Final = "fingerprint"
DECODE_S: Final = "decode_s"

Batch = dict[str, tf.Tensor]


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
    cache: CacheOptions = CACHE

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

    def stager(self, shards: Sequence[ShardInfo], plan: Iterator[str]) -> Stager | None:
        """Returns what brings `shards` here; `plan` names them in their order of use."""
        remote = {self.path_of(shard.name): shard for shard in shards}
        remote = {path: shard for path, shard in remote.items() if is_url(path)}
        # Those of a local folder may have moved to a remote one.
        if not any(needs_staging(path, self.cache) for path in remote):
            return None
        paths = (path for path in map(self.path_of, plan) if path in remote)
        return Stager(remote, paths, self.cache)

    def decode(self) -> BatchDecoder | None:
        """Returns the decoder; None where there are no pictures."""
        shape = self.spec.image_shape
        return None if shape is None else make_decoder(self.decoder, shape)


def raw_records(
    config: ReadConfig,
    *,
    start: Position = BEGINNING,
    epochs: int | None = None,
    tail: bool = False,
) -> tf.data.Dataset:
    """Returns a worker's raw records of training in their order, as string scalars.

    See `order.ShuffleOrder` for `start`, `epochs` and `tail`.
    """
    split = config.manifest.split(config.split)
    num_lanes = config.manifest.num_lanes
    mean_bytes = split.num_bytes / max(1, split.num_records)
    order = ShuffleOrder(
        seed=config.seed,
        num_lanes=num_lanes,
        buffer_records=lane_buffer_records(config.shuffle_buffer_bytes, num_lanes, mean_bytes),
        start=start,
        epochs=epochs,
        tail=tail,
    )
    shards = config.shards(drop_remainder=True)
    return shuffled_records(
        shards,
        order,
        path_of=config.path_of,
        threads=config.parallel_batches,
        stager=config.stager(shards.shards, reading_plan(shards, order)),
    )


def training_batches(
    config: ReadConfig,
    *,
    start: Position = BEGINNING,
    epochs: int | None = None,
    tail: bool = False,
) -> tf.data.Dataset:
    """Returns a worker's training batches from `start` until `epochs` epochs are done.

    The elements are dicts of features with FINGERPRINT and DECODE_S; pictures are uint8. With
    `tail` each epoch's steps are followed by `WorkerShards.tail_steps` steps that hold nothing
    but the fingerprints of the records left out.
    """
    shards = config.shards(drop_remainder=True)
    size, replicas = config.replica_batch, config.replicas
    used = shards.steps_per_epoch * replicas
    per_epoch = used + (shards.tail_steps * replicas if tail else 0)
    parse = _parser(config)

    @plain_graph
    def features(number: tf.Tensor, records: tf.Tensor) -> Batch:
        prints = fingerprint(records)
        if per_epoch == used:
            batch = parse(records, prints, number // per_epoch)
        else:
            batch = tf.cond(
                number % per_epoch < used,
                lambda: parse(records, prints, number // per_epoch),
                lambda: {**empty_batch(config.spec, size), DECODE_S: tf.zeros([], tf.float64)},
            )
        return _shaped({**batch, FINGERPRINT: prints}, size)

    first = start.epoch * per_epoch + start.step * replicas
    records = raw_records(config, start=start, epochs=epochs, tail=tail)
    batches = records.batch(size, drop_remainder=True).enumerate(first)
    batches = batches.map(features, num_parallel_calls=config.parallel_batches, deterministic=True)
    if epochs is None:
        batches = batches.apply(
            tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
        )
    return _finished(batches, config)


def _parser(config: ReadConfig) -> Any:
    """Returns the timed function from raw records [n], fingerprints [n] and epoch to a batch.

    Without an epoch pictures are seen whole.
    """
    parse = batch_parser(config.spec, config.decode())
    augment = config.augment if config.spec.image_shape is not None else NO_AUGMENT

    def timed(records: tf.Tensor, prints: tf.Tensor, epoch: tf.Tensor | None) -> Batch:
        begun = tf.timestamp()
        with tf.control_dependencies([begun]):
            views = None
            if augment and epoch is not None:
                views = draw_views(augment, prints, seed=config.seed, epoch=epoch)
            batch = parse(records, views)
        with tf.control_dependencies(list(batch.values())):
            return {**batch, DECODE_S: tf.timestamp() - begun}

    return timed


def evaluation_batches(config: ReadConfig) -> tf.data.Dataset:
    """Returns a worker's part of a split once, as dicts of features with WEIGHT.

    The number of batches is the same on every worker; what pads them has weight 0.
    """
    size = config.replica_batch
    shards = config.shards(drop_remainder=False)
    parse = _parser(config)

    @plain_graph
    def features(records: tf.Tensor) -> Batch:
        prints = fingerprint(records)
        return _pad({**parse(records, prints, None), FINGERPRINT: prints}, size)

    records = ordered_records(
        shards.shards,
        path_of=config.path_of,
        threads=config.parallel_batches,
        stager=config.stager(shards.shards, (shard.name for shard in shards.shards)),
    )
    batches = records.batch(size).map(
        features, num_parallel_calls=config.parallel_batches, deterministic=True
    )
    total = shards.steps_per_epoch * config.replicas
    own = -(-shards.num_records // size)
    filler = tf.data.Dataset.from_tensors(_zeros(batches.element_spec)).repeat(total - own)
    return _finished(batches.concatenate(filler), config)


def _finished(batches: tf.data.Dataset, config: ReadConfig) -> tf.data.Dataset:
    options = reading_options(config.parallel_batches)
    return batches.prefetch(config.replicas + 1).with_options(options)


def _shaped(batch: Batch, size: int) -> Batch:
    return {
        name: value if name == DECODE_S else tf.ensure_shape(value, [size, *value.shape[1:]])
        for name, value in batch.items()
    }


def _pad(batch: Batch, size: int) -> Batch:
    have = tf.shape(batch[FINGERPRINT])[0]
    batch = {**batch, WEIGHT: tf.ones([have], tf.float32)}

    def pad(value: tf.Tensor) -> tf.Tensor:
        rows = [[0, size - have]] + [[0, 0]] * (value.shape.rank - 1)
        return tf.pad(value, rows, constant_values=zero(value.dtype))

    return _shaped({n: v if n == DECODE_S else pad(v) for n, v in batch.items()}, size)


def _zeros(spec: dict[str, tf.TensorSpec]) -> Batch:
    return {name: tf.fill(value.shape, zero(value.dtype)) for name, value in spec.items()}


def split_batch(batch: Batch) -> tuple[Any, tf.Tensor | None, tf.Tensor | None]:
    """Returns (x, y, weight) of a batch, pictures as float32 from 0 to 255.

    y and weight are None where it has none.
    """
    rest = {
        name: tf.cast(value, tf.float32) if value.dtype == tf.uint8 else value
        for name, value in batch.items()
        if name not in (LABEL, WEIGHT, FINGERPRINT, DECODE_S)
    }
    inputs = next(iter(rest.values())) if len(rest) == 1 else rest
    return inputs, batch.get(LABEL), batch.get(WEIGHT)


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
