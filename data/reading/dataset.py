"""`worker_dataset`: the batches of one worker, read from its own lanes' shards only."""

import json
import os
from typing import Any, NamedTuple

import tensorflow as tf

from tenfold.data.errors import UserError
from tenfold.data.format.manifest import IMAGE
from tenfold.data.planning.lanes import assign_lanes
from tenfold.data.reading.batches import evaluation_batches, split_batch, training_batches
from tenfold.data.reading.decoding.decoders import AUTO
from tenfold.data.reading.order import Position, plain_graph
from tenfold.data.reading.read_config import ReadConfig, read_config
from tenfold.data.reading.receipts import (
    RECEIPT_COUNTS,
    add_evaluation_counts,
    add_training_counts,
)
from tenfold.data.storage.read_manifest import read_manifest
from tenfold.data.storage.shard_cache import DEFAULT_CACHE, CacheOptions


def worker_dataset(
    shards: str, *, global_batch_size: int, split: str = "train", training: bool = True,
    context: tf.distribute.InputContext | None = None, num_workers: int | None = None,
    worker_index: int | None = None, replicas: int = 1,
    seed: int = 0, epochs: int | None = None, start_epoch: int = 0, start_step: int = 0,
    image_size: tuple[int, int] | None = None, image_dtype: str = "float32", augment: str = "",
    decoder: str = AUTO, shuffle_buffer_bytes: int = 256 * 10**6, threads: int = 0,
    cache: CacheOptions = DEFAULT_CACHE, receipt: bool = False,
) -> tf.data.Dataset:  # fmt: skip
    """Returns this worker's batches of a split, from its own lanes' shards only.

    For training the elements are (x, y), `steps_per_epoch` of them an epoch, equal on every
    worker; they begin at (`start_epoch`, `start_step`) and end when `epochs` epochs are done
    (None: never). Global batch t of an epoch holds the same records on any number of workers.
    For evaluation (`training=False`) the elements are (x, y, weight), every record once,
    padded with weight 0 to the same number of batches on every worker.

    x is [batch, height, width, channels] with values 0 to 255 for images, float32 or uint8
    as `image_dtype` says, the feature itself where there is one other, a dict of them where
    there are several; y is int64 [batch], or absent where the shards have no ``label``.

    Which worker this is and how many replicas it has is taken from `context`, what
    `strategy.distribute_datasets_from_function` gives; or from `num_workers`, `worker_index`
    and `replicas`; or from TF_CONFIG; without any of them it is the only worker. An element
    is what one replica gets.

    `augment` (training only) is what `augment.parse_augment` reads: ``flip``, ``crop:0.5`` or
    both; `decoder` one of `decode.DECODERS`, or the fastest that is installed. `cache` says how
    shards on remote storage come here.

    With `receipt` each element has a last part more, int64 [3]: how many records it holds, how
    many the epoch leaves out (told by the epoch's last element), and the sum of the fingerprints
    of both. `epoch_receipt` takes the sum of these over an epoch's elements on all replicas.

    Raises:
      UserError: the shards, the split or the numbers do not fit; the message says how.
    """
    if image_dtype not in ("float32", "uint8"):
        raise UserError(f"image_dtype '{image_dtype}' is neither float32 nor uint8")
    place = _place(context, num_workers, worker_index, replicas)
    config = read_config(
        shards, split=split, global_batch_size=global_batch_size, num_workers=place.workers,
        worker=place.worker, replicas=place.replicas, seed=seed, image_size=image_size,
        augment=augment, decoder=decoder, shuffle_buffer_bytes=shuffle_buffer_bytes,
        threads=threads, cache=cache,
    )  # fmt: skip
    if training:
        start = _start(config, start_epoch, start_step)
        batches = _training(config, start=start, epochs=epochs, receipt=receipt)
    else:
        batches = _evaluation(config, receipt=receipt)
    return batches.map(plain_graph(lambda batch: _as_tuple(batch, image_dtype)))


def steps_per_epoch(shards: str, *, global_batch_size: int, split: str = "train") -> int:
    """Returns the training steps of an epoch, the same on any number of workers.

    Raises:
      UserError: the shards, the split or the batch size do not fit.
    """
    workers = assign_lanes(
        read_manifest(shards), split, num_workers=1, global_batch_size=global_batch_size
    )
    return workers[0].steps_per_epoch


class _Place(NamedTuple):
    """Which of how many workers reads, and for how many replicas."""

    workers: int
    worker: int
    replicas: int


def _place(
    context: tf.distribute.InputContext | None,
    num_workers: int | None, worker_index: int | None, replicas: int,
) -> _Place:  # fmt: skip
    if context is not None:
        workers = context.num_input_pipelines
        return _Place(workers, context.input_pipeline_id, context.num_replicas_in_sync // workers)
    if num_workers is not None and worker_index is not None:
        return _Place(num_workers, worker_index, replicas)
    if num_workers is not None or worker_index is not None:
        raise UserError("num_workers and worker_index belong together: give both or neither")
    config = json.loads(os.environ.get("TF_CONFIG") or "{}")
    workers = config.get("cluster", {}).get("worker", ["this process"])
    return _Place(len(workers), int(config.get("task", {}).get("index", 0)), replicas)


def _training(
    config: ReadConfig, *, start: Position, epochs: int | None, receipt: bool
) -> tf.data.Dataset:
    batches = training_batches(config, start=start, epochs=epochs, tail=receipt)
    if not receipt:
        return batches
    return add_training_counts(batches, config, start=start, epochs=epochs)


def _evaluation(config: ReadConfig, *, receipt: bool) -> tf.data.Dataset:
    batches = evaluation_batches(config)
    return add_evaluation_counts(batches) if receipt else batches


def _start(config: ReadConfig, epoch: int, step: int) -> Position:
    steps = config.shards(drop_remainder=True).steps_per_epoch
    if not 0 <= step <= steps:
        raise UserError(f"start_step {step} is not between 0 and the {steps} steps of an epoch")
    return Position(epoch + 1, 0) if step == steps else Position(epoch, step)


def _as_tuple(batch: dict[str, tf.Tensor], image_dtype: str) -> tuple[Any, ...]:
    batch = dict(batch)
    seen = batch.pop(RECEIPT_COUNTS, None)
    inputs, label, weight = split_batch(batch)
    if image_dtype == "uint8" and IMAGE in batch:
        kept = batch[IMAGE]
        inputs = {**inputs, IMAGE: kept} if isinstance(inputs, dict) else kept
    return inputs, *(part for part in (label, weight, seen) if part is not None)
