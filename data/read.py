"""`worker_dataset`: the batches of one worker, read from its own lanes' shards only."""

import json
import os
from dataclasses import dataclass, replace
from typing import Any

import tensorflow as tf

from tenfold.data.errors import UserError
from tenfold.data.lanes import WorkerShards, assign_lanes
from tenfold.data.manifest import LABEL, Manifest, Split
from tenfold.data.order import BEGINNING, Position, lane_buffer_records, ordered_records, shuffled_records
from tenfold.data.parse import FINGERPRINT, InputSpec, input_spec, parser
from tenfold.data.storage import read_manifest

WEIGHT = "weight"


@dataclass(frozen=True)
class ReadConfig:
    """How a worker reads a split of the shards in `folder`.

    `replicas` is the number of the worker's own replicas: each gets its part of the batch
    in turn. `threads` is how many decode side by side.
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

    def shards(self, *, drop_remainder: bool) -> WorkerShards:
        """Returns this worker's lanes and the steps of an epoch."""
        return assign_lanes(
            self.manifest,
            self.split,
            num_workers=self.num_workers,
            global_batch_size=self.global_batch_size,
            drop_remainder=drop_remainder,
        )[self.worker]


def worker_dataset(
    shards: str,
    *,
    global_batch_size: int,
    split: str = "train",
    training: bool = True,
    num_workers: int | None = None,
    worker_index: int | None = None,
    replicas: int = 1,
    seed: int = 0,
    epochs: int | None = None,
    start_epoch: int = 0,
    start_step: int = 0,
    image_size: tuple[int, int] | None = None,
    shuffle_buffer_bytes: int = 256 * 10**6,
    threads: int = 0,
) -> tf.data.Dataset:
    """Returns this worker's batches of a split, from its own lanes' shards only.

    For training the elements are (x, y) and go on for `epochs` epochs (None: for ever) from
    (`start_epoch`, `start_step`): `steps_per_epoch` batches an epoch, equal on every worker,
    and global batch t of an epoch holds the same records on any number of workers. For
    evaluation (`training=False`) the elements are (x, y, weight), every record once, padded
    with weight 0 to the same number of batches on every worker.

    x is float32 [batch, height, width, channels] with values 0 to 255 for pictures, the
    feature itself where there is one other, a dict of them where there are several; y is
    int64 [batch], or absent where the shards have no ``label``.

    `num_workers` and `worker_index` None are taken from TF_CONFIG, or 1 and 0 without it.
    `replicas` are the replicas of this worker; a batch is what one replica gets.

    Raises:
      UserError: the shards, the split or the numbers do not fit; the message says how.
    """
    workers, index = _place(num_workers, worker_index)
    manifest = read_manifest(shards)
    config = ReadConfig(
        folder=shards.rstrip("/"),
        manifest=manifest,
        split=split,
        global_batch_size=global_batch_size,
        num_workers=workers,
        worker=index,
        spec=input_spec(manifest, image_size),
        seed=seed,
        replicas=replicas,
        shuffle_buffer_bytes=shuffle_buffer_bytes,
        threads=threads,
    )
    if not training:
        return evaluation_batches(config).map(_as_tuple)
    start = Position(start_epoch, start_step)
    return training_batches(config, start=start, epochs=epochs).map(_as_tuple)


def _place(num_workers: int | None, worker_index: int | None) -> tuple[int, int]:
    if num_workers is not None and worker_index is not None:
        return num_workers, worker_index
    if num_workers is not None or worker_index is not None:
        raise UserError("num_workers and worker_index belong together: give both or neither")
    config = json.loads(os.environ.get("TF_CONFIG") or "{}")
    workers = config.get("cluster", {}).get("worker", ["this process"])
    return len(workers), int(config.get("task", {}).get("index", 0))


def training_batches(
    config: ReadConfig, *, start: Position = BEGINNING, epochs: int | None = None
) -> tf.data.Dataset:
    """Returns a worker's training batches as dicts of features with `FINGERPRINT`."""
    threads = config.threads or available_threads()
    shards = config.shards(drop_remainder=True)
    split = config.manifest.split(config.split)
    records = shuffled_records(
        shards,
        config.folder,
        num_lanes=config.manifest.num_lanes,
        seed=config.seed,
        buffer_records=_buffer_records(config, split),
        start=start,
        epochs=epochs,
        threads=threads,
    )
    batches = _decoded(records, config.spec, threads).batch(
        config.replica_batch, drop_remainder=True
    )
    if epochs is None:
        batches = batches.apply(
            tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
        )
    return batches.prefetch(2).with_options(reading_options(threads))


def _buffer_records(config: ReadConfig, split: Split) -> int:
    mean = split.num_bytes / max(1, split.num_records)
    return lane_buffer_records(config.shuffle_buffer_bytes, config.manifest.num_lanes, mean)


def evaluation_batches(config: ReadConfig) -> tf.data.Dataset:
    """Returns a worker's part of a split once, as dicts of features with `WEIGHT`.

    The number of batches is the same on every worker; what pads them has weight 0.
    """
    threads = config.threads or available_threads()
    size = config.replica_batch
    shards = config.shards(drop_remainder=False)
    records = ordered_records(shards.files, config.folder, threads=threads)
    batches = _decoded(records, config.spec, threads).batch(size)
    padded = batches.map(lambda batch: _pad(batch, size))
    total = shards.steps_per_epoch * config.replicas
    own = -(-shards.num_records // size)
    filler = tf.data.Dataset.from_tensors(_zeros(padded.element_spec)).repeat(total - own)
    return padded.concatenate(filler).prefetch(2).with_options(reading_options(threads))


def _decoded(records: tf.data.Dataset, spec: InputSpec, threads: int) -> tf.data.Dataset:
    return records.map(parser(spec), num_parallel_calls=threads, deterministic=True)


def _pad(batch: dict[str, tf.Tensor], size: int) -> dict[str, tf.Tensor]:
    have = tf.shape(batch[FINGERPRINT])[0]
    batch = {**batch, WEIGHT: tf.ones([have], tf.float32)}

    def pad(value: tf.Tensor) -> tf.Tensor:
        rows = [[0, size - have]] + [[0, 0]] * (value.shape.rank - 1)
        return tf.ensure_shape(
            tf.pad(value, rows, constant_values=_zero(value.dtype)), [size, *value.shape[1:]]
        )

    return {name: pad(value) for name, value in batch.items()}


def _zeros(spec: dict[str, tf.TensorSpec]) -> dict[str, tf.Tensor]:
    return {name: tf.fill(value.shape, _zero(value.dtype)) for name, value in spec.items()}


def _zero(dtype: tf.DType) -> tf.Tensor:
    return tf.constant("" if dtype == tf.string else 0, dtype)


def _as_tuple(batch: dict[str, tf.Tensor]) -> tuple[Any, ...]:
    inputs, label, weight = split_batch(batch)
    parts = [inputs] if label is None else [inputs, label]
    return tuple(parts if weight is None else [*parts, weight])


def split_batch(batch: dict[str, tf.Tensor]) -> tuple[Any, tf.Tensor | None, tf.Tensor | None]:
    """Returns (x, y, weight) of a batch; y and weight are None where it has none."""
    rest = {k: v for k, v in batch.items() if k not in (LABEL, WEIGHT, FINGERPRINT)}
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


def with_replicas(config: ReadConfig, replicas: int) -> ReadConfig:
    """Returns `config` for a worker that has `replicas` replicas."""
    return replace(config, replicas=replicas)
