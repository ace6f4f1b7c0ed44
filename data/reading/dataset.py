"""The batches of one worker, for scripts of the user's own: training and evaluation."""

from dataclasses import replace
from typing import Any

import tensorflow as tf

from tenfold.data.errors import UserError
from tenfold.data.planning.lanes import DROP
from tenfold.data.planning.mixture_shares import check_one_folder, parse_data_shares
from tenfold.data.reading.batches import evaluation_batches
from tenfold.data.reading.decoding.decoders import AUTO
from tenfold.data.reading.feeding.feed import MapFunction, unpack
from tenfold.data.reading.mixing.mixed_batches import mixed_batches
from tenfold.data.reading.mixing.mixture import Mixture, open_mixture
from tenfold.data.reading.read_config import read_config
from tenfold.data.reading.read_options import (
    BEGINNING,
    DEFAULT_OPTIONS,
    Position,
    ReadOptions,
    WorkerPlace,
)
from tenfold.data.reading.receipts import add_evaluation_counts, fold_tails
from tenfold.data.reading.records.record_reader import Batch, TrainingBatch
from tenfold.data.reading.records.shard_elements import plain_graph
from tenfold.data.storage.cache_options import DEFAULT_CACHE, CacheOptions
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
      shards: folder or URL of the shards; or a mixture, ``a:0.7,b:0.3``, whose parts each give
        their share of every batch, and whose epochs are those of the first one.
      global_batch_size: records of a step over all workers.
      split: name of the split.
      options: how records are decoded, shuffled and fetched.
      place: which worker this is; None takes `WorkerPlace.from_environment()`.
      start: where to begin, on any number of workers.
      epochs: epochs of the whole run, those before `start` included; None never ends.
      weights: add `weight` to the elements; needed where the parts of a batch differ in size.
      receipt: add `counts` to the elements; not for mixtures.
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
    mixture = open_mixture(
        parse_data_shares(shards),
        split=split,
        global_batch_size=global_batch_size,
        place=place or WorkerPlace.from_environment(),
        options=_with_map(options, map),
    )
    if not weights:
        _check_even(mixture)
    if receipt:
        _check_provable(mixture)
    start = _check_start(mixture, start)
    batches = mixed_batches(mixture, start=start, epochs=epochs, tail=receipt)
    if receipt:
        batches = fold_tails(batches, mixture.first, start=start, epochs=epochs)
    return _as_tuples(batches, options.image_dtype, weights=weights, counts=receipt)


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
    check_one_folder(shards, "evaluation_dataset")
    config = read_config(
        shards,
        split=split,
        global_batch_size=global_batch_size,
        place=place or WorkerPlace.from_environment(),
        options=_with_map(options, map),
    )
    batches = evaluation_batches(config)
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
    mixture = open_mixture(
        parse_data_shares(shards),
        split=split,
        global_batch_size=global_batch_size,
        options=ReadOptions(remainder=remainder),
    )
    return mixture.steps_per_epoch


def _with_map(options: ReadOptions, function: MapFunction | str | None) -> ReadOptions:
    return options if function is None else replace(options, map=function)


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


def _check_start(mixture: Mixture, start: Position) -> Position:
    """Return `start`; the end of an epoch is the beginning of the next one."""
    steps = mixture.steps_per_epoch
    if start.step > steps:
        raise UserError(f"start: step {start.step} is not between 0 and the {steps} steps of an "
                        "epoch")  # fmt: skip
    return Position(start.epoch + 1, 0) if start.step == steps else start


def _check_even(mixture: Mixture) -> None:
    """Check that all parts of a batch have the same number of records.

    Raises:
      UserError: they have not, so that the mean of their losses is not that of the batch.
    """
    place = mixture.first.place
    if not mixture.is_even(place.replicas):
        lanes = " and ".join(str(member.manifest.num_lanes) for member in mixture.members)
        raise UserError(
            f"a batch of {mixture.global_batch_size} from {lanes} lanes has parts that differ in "
            f"size, on {plural(place.num_workers, 'worker')} with "
            f"{plural(place.replicas, 'replica')} each and "
            f"remainder={mixture.first.options.remainder}: "
            "give weights=True to training_dataset, and use the weight in the loss, or take "
            "numbers that divide evenly, and a remainder other than pad"
        )


def _check_provable(mixture: Mixture) -> None:
    """Check that each record is read once in an epoch, which a receipt proves.

    Raises:
      UserError: it is not.
    """
    if mixture.is_mixed or mixture.first.balance is not None:
        why = "a mixture" if mixture.is_mixed else f"balance={mixture.first.options.balance}"
        raise UserError(
            f"receipt=True proves that each record is read once, and {why} reads some several "
            "times: leave out one of them"
        )


def _as_tuples(
    batches: tf.data.Dataset, image_dtype: str, *, weights: bool, counts: bool = False
) -> tf.data.Dataset:
    """Return batches, or (batch, counts), as the tuples that users get.

    Args:
      batches: `TrainingBatch` or `EvaluationBatch` elements, the latter with counts or without.
      image_dtype: the dtype of images.
      weights: add the weights of the records.
      counts: add the counts of `TrainingBatch`.
    """

    @plain_graph
    def convert(batch: Batch, *found: tf.Tensor) -> tuple[Any, ...]:
        x, y, weight = unpack(batch.fed)
        if image_dtype == "uint8":
            x = batch.fed[0]
        if isinstance(batch, TrainingBatch) and weights:
            share = tf.fill(tf.shape(batch.fingerprints), batch.share)
            weight = share if weight is None else share * weight
        if not isinstance(batch, TrainingBatch):
            weight = batch.present if weight is None else batch.present * weight
        if isinstance(batch, TrainingBatch) and counts:
            found = (batch.counts[0],)
        return x, *(part for part in (y, weight) if part is not None), *found

    return batches.map(convert)
