"""The batches of one worker, for scripts of the user's own: training and evaluation."""

from dataclasses import replace
from typing import Any

import tensorflow as tf

from tenfold.data.errors import UserError
from tenfold.data.planning.lanes import DROP, assign_lanes
from tenfold.data.reading.batches import evaluation_batches, training_batches
from tenfold.data.reading.decoding.decoders import AUTO
from tenfold.data.reading.feeding.feed import MapFunction, unpack
from tenfold.data.reading.read_config import ReadConfig, read_config
from tenfold.data.reading.read_options import (
    BEGINNING,
    DEFAULT_OPTIONS,
    Position,
    ReadOptions,
    WorkerPlace,
)
from tenfold.data.reading.receipts import add_evaluation_counts, add_training_counts
from tenfold.data.reading.records.record_reader import Batch, TrainingBatch
from tenfold.data.reading.records.shard_elements import plain_graph
from tenfold.data.storage.cache_options import DEFAULT_CACHE, CacheOptions
from tenfold.data.storage.read_manifest import read_manifest
from tenfold.data.units import plural


def training_dataset(
    shards: str,
    *,
    global_batch_size: int,
    split: str = "train",
    options: ReadOptions = DEFAULT_OPTIONS,
    place: WorkerPlace | None = None,
    start: Position = BEGINNING,
    epochs: int | None = None,
    weights: bool = False,
    receipt: bool = False,
    map: MapFunction | str | None = None,
) -> tf.data.Dataset:
    """Return this worker's training batches, read from its own lanes' shards only.

    An epoch has `steps_per_epoch` steps on every worker. Global batch t of an epoch holds the
    same records on any number of workers.

    Args:
      shards: folder or URL of the shards.
      global_batch_size: records of a step over all workers.
      split: name of the split.
      options: how records are decoded, shuffled and fetched.
      place: which worker this is; None takes `WorkerPlace.from_environment()`.
      start: where to begin, on any number of workers.
      epochs: epochs of the whole run, those before `start` included; None never ends.
      weights: add `weight` to the elements; needed where the parts of a batch differ in size.
      receipt: add `counts` to the elements.
      map: in place of `ReadOptions.map`.

    Elements:
      What the map returns, x, (x, y) or (x, y, weight), with `weight` and `counts` after it where
      asked for; without a map (x, y), or x alone where there is no target. An element is the
      part of a batch that one replica gets: n = global_batch_size
      / workers / replicas, or with `weights` about as many.

      x: the feature beside the target, or a dict of features where there are several: images
        float32 or uint8 [n, height, width, channels] with values 0 to 255, numbers float32 or
        int64 [n, …], bytes as string [n, …]; a `tf.RaggedTensor` where records differ in shape.
      y: the target, as ``label``, int64 [n]; or a dict of several.
      weight: float32 [n]: the weight of each record, 1 without one, times n as a multiple of its
        mean over all replicas. The mean over the replicas of their mean weighted losses is the
        mean weighted loss of the batch.
      counts: int64 [3]: records, leftover records (in an epoch's last element), and the sum of
        both's fingerprints modulo 2**64. `epoch_receipt` takes the sum of an epoch's counts.

    Raises:
      UserError: the shards, the split, the batch size, the workers or their variables do not fit.
    """
    config = _config(shards, split, global_batch_size, _with_map(options, map), place)
    if not weights:
        _check_even(config)
    if receipt and config.balance is not None:
        raise UserError(
            f"receipt=True proves that each record is read once, and balance={options.balance} "
            "reads some several times: leave out one of them"
        )
    start = _check_start(config, start)
    batches = training_batches(config, start=start, epochs=epochs, tail=receipt)
    if receipt:
        batches = add_training_counts(batches, config, start=start, epochs=epochs)
    return _as_tuples(batches, options.image_dtype, weights=weights)


def evaluation_dataset(
    shards: str,
    *,
    global_batch_size: int,
    split: str = "validation",
    options: ReadOptions = DEFAULT_OPTIONS,
    place: WorkerPlace | None = None,
    receipt: bool = False,
    map: MapFunction | str | None = None,
) -> tf.data.Dataset:
    """Return this worker's part of a split, every record once.

    All workers get the same number of batches; padding has weight 0.

    Args:
      shards: folder or URL of the shards.
      global_batch_size: records of a step over all workers.
      split: name of the split.
      options: how records are decoded and fetched; what concerns training alone is ignored.
      place: which worker this is; None takes `WorkerPlace.from_environment()`.
      receipt: add `counts` to the elements.
      map: in place of `ReadOptions.map`.

    Elements:
      (x, y, weight), or (x, y, weight, counts) with `receipt`; without y where there is no
      target. x, y and counts are those of `training_dataset`.

      weight: float32 [n], the weight of a record, 1 without one, and 0 for padding.

    Raises:
      UserError: the shards, the split, the batch size, the workers or their variables do not fit.
    """
    options = _with_map(options, map)
    batches = evaluation_batches(_config(shards, split, global_batch_size, options, place))
    if receipt:
        batches = add_evaluation_counts(batches)
    return _as_tuples(batches, options.image_dtype, weights=True)


def worker_dataset(
    shards: str, *, global_batch_size: int, split: str = "train", training: bool = True,
    context: tf.distribute.InputContext | None = None, num_workers: int | None = None,
    worker_index: int | None = None, replicas: int = 1,
    seed: int = 0, epochs: int | None = None, start_epoch: int = 0, start_step: int = 0,
    image_size: tuple[int, int] | None = None, image_dtype: str = "float32", augment: str = "",
    decoder: str = AUTO, shuffle_buffer_bytes: int = 256 * 10**6, threads: int = 0,
    cache: CacheOptions = DEFAULT_CACHE, receipt: bool = False,
) -> tf.data.Dataset:  # fmt: skip
    """Return `training_dataset`, or `evaluation_dataset` with ``training=False``.

    An older form of both, with every option as an argument. `context`, `num_workers` with
    `worker_index`, and `replicas` give the place, `start_epoch` and `start_step` the position;
    the other arguments are fields of `ReadOptions`.

    Raises:
      UserError: the shards, the split, an option or the workers do not fit.
    """
    options = ReadOptions(
        image_size=image_size, image_dtype=image_dtype, augment=augment, decoder=decoder,
        seed=seed, shuffle_buffer_bytes=shuffle_buffer_bytes, threads=threads, cache=cache,
    )  # fmt: skip
    place = _place(context, num_workers, worker_index, replicas)
    if not training:
        return evaluation_dataset(
            shards, global_batch_size=global_batch_size, split=split, options=options,
            place=place, receipt=receipt,
        )  # fmt: skip
    return training_dataset(
        shards, global_batch_size=global_batch_size, split=split, options=options, place=place,
        start=Position(start_epoch, start_step), epochs=epochs, receipt=receipt,
    )  # fmt: skip


def steps_per_epoch(
    shards: str, *, global_batch_size: int, split: str = "train", remainder: str = DROP
) -> int:
    """Return the training steps of an epoch, the same on any number of workers.

    Args:
      shards: folder or URL of the shards.
      global_batch_size: records of a step over all workers.
      split: name of the split.
      remainder: that of the `ReadOptions` which the split is read with.

    Raises:
      UserError: the shards, the split, the batch size or the remainder do not fit.
    """
    workers = assign_lanes(
        read_manifest(shards),
        split,
        num_workers=1,
        global_batch_size=global_batch_size,
        remainder=remainder,
    )
    return workers[0].steps_per_epoch


def _with_map(options: ReadOptions, function: MapFunction | str | None) -> ReadOptions:
    return options if function is None else replace(options, map=function)


def _config(
    shards: str,
    split: str,
    global_batch_size: int,
    options: ReadOptions,
    place: WorkerPlace | None,
) -> ReadConfig:
    return read_config(
        shards,
        split=split,
        global_batch_size=global_batch_size,
        place=place or WorkerPlace.from_environment(),
        options=options,
    )


def _place(
    context: tf.distribute.InputContext | None,
    num_workers: int | None, worker_index: int | None, replicas: int,
) -> WorkerPlace:  # fmt: skip
    if context is not None:
        return WorkerPlace.from_context(context)
    if num_workers is not None and worker_index is not None:
        return WorkerPlace(worker_index, num_workers, replicas)
    if num_workers is not None or worker_index is not None:
        raise UserError("num_workers and worker_index belong together: give both or neither")
    return WorkerPlace.from_environment(replicas=replicas)


def _check_start(config: ReadConfig, start: Position) -> Position:
    """Return `start`; the end of an epoch is the beginning of the next one."""
    steps = config.shards.steps_per_epoch
    if start.step > steps:
        raise UserError(f"start: step {start.step} is not between 0 and the {steps} steps of an "
                        "epoch")  # fmt: skip
    return Position(start.epoch + 1, 0) if start.step == steps else start


def _check_even(config: ReadConfig) -> None:
    """Check that all parts of a batch have the same number of records.

    Raises:
      UserError: they have not, so that the mean of their losses is not that of the batch.
    """
    place, lanes = config.place, config.manifest.num_lanes
    if not config.shards.is_even(place.replicas):
        raise UserError(
            f"a batch of {config.global_batch_size} from {lanes} lanes has parts that differ in "
            f"size, on {plural(place.num_workers, 'worker')} with "
            f"{plural(place.replicas, 'replica')} each and remainder={config.options.remainder}: "
            "give weights=True to training_dataset, and use the weight in the loss, or take "
            "numbers that divide evenly, and a remainder other than pad"
        )


def _as_tuples(batches: tf.data.Dataset, image_dtype: str, *, weights: bool) -> tf.data.Dataset:
    """Return batches, or (batch, counts), as the tuples that users get."""

    @plain_graph
    def convert(batch: Batch, *counts: tf.Tensor) -> tuple[Any, ...]:
        x, y, weight = unpack(batch.fed)
        if image_dtype == "uint8":
            x = batch.fed[0]
        if isinstance(batch, TrainingBatch) and weights:
            share = tf.fill(tf.shape(batch.fingerprints), batch.share)
            weight = share if weight is None else share * weight
        if not isinstance(batch, TrainingBatch):
            weight = batch.present if weight is None else batch.present * weight
        return x, *(part for part in (y, weight) if part is not None), *counts

    return batches.map(convert)
