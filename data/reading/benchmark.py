"""Throughput of the input pipeline alone; batches are taken in a graph, as in training."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import tensorflow as tf

from tenfold.data.reading.batches import (
    raw_records,
    reading_options,
    training_batches,
)
from tenfold.data.reading.decoding.decoders import resolve_decoder
from tenfold.data.reading.feeding.feed_options import DEFAULT_FEED, FeedOptions
from tenfold.data.reading.locating.read_errors import explain_errors
from tenfold.data.reading.read_config import ReadConfig, read_config
from tenfold.data.reading.read_options import ReadOptions, WorkerPlace
from tenfold.data.reading.records.record_reader import TrainingBatch
from tenfold.data.storage.cache_options import DEFAULT_CACHE, CacheOptions

# Batches per call are adapted so that a call takes about this long.
_CALL_S: Final = 0.1

# Takes a number of batches from an iterator; returns the seconds that decoding them took.
_TakeFunction = Callable[[Any, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


@dataclass(frozen=True)
class Rate:
    """Records a second, megabytes (10**6) of shards a second, CPU milliseconds a record."""

    records_per_s: float
    megabytes_per_s: float
    cpu_ms: float


@dataclass(frozen=True)
class ReadBench:
    """The results of `measure_reading`.

    `decode_share` is the share of time that decoding threads were busy, 0 to 1.
    """

    threads: int
    decoder: str | None
    batch_size: int
    mean_record_bytes: float
    raw: Rate
    decoded: Rate
    decode_share: float


def measure_reading(
    shards: str,
    *,
    split: str = "train",
    num_workers: int = 1,
    global_batch_size: int = 64,
    image_size: tuple[int, int] | None = None,
    decoder: str = "auto",
    augment: str = "",
    threads: int = 0,
    shuffle_buffer_bytes: int = 256 * 10**6,
    seconds: float = 5.0,
    cache: CacheOptions = DEFAULT_CACHE,
    feed: FeedOptions = DEFAULT_FEED,
    map: str = "",
) -> ReadBench:
    """Read the training records of worker 0 of `num_workers`, for `seconds` a stage.

    Each stage is warmed up first, for a quarter of that time. The other arguments are those of
    `read_config` and fields of `ReadOptions`.

    Raises:
      UserError: the shards, an option or the workers do not fit.
      JobError: a shard or a record cannot be read.
    """
    options = ReadOptions(
        image_size=image_size,
        augment=augment,
        decoder=decoder,
        shuffle_buffer_bytes=shuffle_buffer_bytes,
        threads=threads,
        cache=cache,
        feed=feed,
        map=map,
    )
    config = read_config(
        shards,
        split=split,
        global_batch_size=global_batch_size,
        place=WorkerPlace(0, num_workers),
        options=options,
    )
    records = config.manifest.split(split)
    mean_bytes = records.num_bytes / max(1, records.num_records)
    raw = raw_records(config).batch(config.evaluation_batch)
    raw = raw.with_options(reading_options(config.parallel_batches))
    with explain_errors():
        raw_rate, _ = _measure(raw, config, mean_bytes, seconds)
        rate, share = _measure(training_batches(config), config, mean_bytes, seconds)
    images = config.spec.image_shape is not None
    return ReadBench(
        threads=config.parallel_batches,
        decoder=resolve_decoder(decoder) if images else None,
        batch_size=config.evaluation_batch,
        mean_record_bytes=mean_bytes,
        raw=raw_rate,
        decoded=rate,
        decode_share=share,
    )


def _measure(
    dataset: tf.data.Dataset, config: ReadConfig, mean_bytes: float, seconds: float
) -> tuple[Rate, float]:
    """Return the rate of an endless dataset, and the share of time that decoding was busy."""
    iterator = iter(dataset)
    take = tf.function(_take, autograph=False)
    _take_for(seconds / 4, iterator, take)
    begin_s, cpu_s = time.perf_counter(), time.process_time()
    records, decode_s = _take_for(seconds, iterator, take)
    wall_s, cpu_s = time.perf_counter() - begin_s, time.process_time() - cpu_s
    rate = Rate(records / wall_s, records * mean_bytes / wall_s / 1e6, 1e3 * cpu_s / records)
    return rate, min(1.0, decode_s / wall_s / config.parallel_batches)


def _take_for(
    seconds: float, iterator: tf.data.Iterator, take: _TakeFunction
) -> tuple[int, float]:
    """Take batches for `seconds`, at least one; return their records and decoding seconds."""
    end_s = time.perf_counter() + seconds
    records, per_call, decode_s = 0, 1, 0.0
    while records == 0 or time.perf_counter() < end_s:
        begin_s = time.perf_counter()
        count, seconds_decoding = take(iterator, tf.constant(per_call))
        records, decode_s = records + int(count), decode_s + float(seconds_decoding)
        is_short = time.perf_counter() - begin_s < _CALL_S
        per_call = per_call * 2 if is_short else max(1, per_call // 2)
    return records, decode_s


def _take(iterator: Any, count: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The body of a `_TakeFunction`; run as a graph function."""

    def take_one(index: tf.Tensor, records: tf.Tensor, decode_s: tf.Tensor) -> tuple[Any, ...]:
        batch = iterator.get_next()
        if not isinstance(batch, TrainingBatch):
            return index + 1, records + tf.size(batch), decode_s
        return index + 1, records + tf.size(batch.fingerprints), decode_s + batch.decode_s

    begin = (tf.constant(0), tf.constant(0), tf.zeros([], tf.float64))
    more = lambda index, *_: index < count  # noqa: E731
    _, records, decode_s = tf.while_loop(more, take_one, begin, parallel_iterations=1)
    return records, decode_s
