"""Measuring the input pipeline alone: batches are taken in a graph, as training takes them."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import tensorflow as tf

from tenfold.data.reading.batches import DECODE_S, raw_records, training_batches
from tenfold.data.reading.decoding.decoders import resolve_decoder
from tenfold.data.reading.read_config import ReadConfig, read_config, reading_options
from tenfold.data.storage.prefetch import prefetch_failures
from tenfold.data.storage.shard_cache import DEFAULT_CACHE, CacheOptions

# So many batches are taken in a call that it lasts about so long.
_CALL_S: Final = 0.1

# Takes so many batches from an iterator; returns the sum of the seconds that decoding them took.
_Take = Callable[[Any, tf.Tensor], tf.Tensor]


@dataclass(frozen=True)
class Rate:
    """Records and megabytes (10**6) of shard read a second, CPU milliseconds per record."""

    records_per_s: float
    megabytes_per_s: float
    cpu_ms: float


@dataclass(frozen=True)
class ReadBench:
    """What `measure_reading` found. `decode_share` is how busy the decoding threads were."""

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
) -> ReadBench:
    """Reads what worker 0 of `num_workers` would train on, for `seconds` a stage.

    Each stage is warmed up for a quarter of that time first.

    Raises:
      UserError: the shards and the numbers do not fit.
    """
    config = read_config(
        shards,
        split=split,
        global_batch_size=global_batch_size,
        num_workers=num_workers,
        worker=0,
        image_size=image_size,
        augment=augment,
        decoder=decoder,
        shuffle_buffer_bytes=shuffle_buffer_bytes,
        threads=threads,
        cache=cache,
    )
    chosen = config.manifest.split(split)
    mean_bytes = chosen.num_bytes / max(1, chosen.num_records)
    raw = raw_records(config).batch(config.replica_batch)
    raw = raw.with_options(reading_options(config.parallel_batches))
    with prefetch_failures():
        raw_rate, _ = _measure(raw, config, mean_bytes, seconds)
        rate, share = _measure(training_batches(config), config, mean_bytes, seconds)
    images = config.spec.image_shape is not None
    return ReadBench(
        threads=config.parallel_batches,
        decoder=resolve_decoder(decoder) if images else None,
        batch_size=config.replica_batch,
        mean_record_bytes=mean_bytes,
        raw=raw_rate,
        decoded=rate,
        decode_share=share,
    )


def _measure(
    dataset: tf.data.Dataset, config: ReadConfig, mean_bytes: float, seconds: float
) -> tuple[Rate, float]:
    """Returns the rate of an endless dataset, and the share of time that decoding was at work."""
    iterator = iter(dataset)
    take = tf.function(_taken, autograph=False)
    _take_for(seconds / 4, iterator, take)
    begun, cpu = time.perf_counter(), time.process_time()
    batches, decode_s = _take_for(seconds, iterator, take)
    wall, cpu = time.perf_counter() - begun, time.process_time() - cpu
    records = batches * config.replica_batch
    rate = Rate(records / wall, records * mean_bytes / wall / 1e6, 1e3 * cpu / records)
    return rate, min(1.0, decode_s / wall / config.parallel_batches)


def _take_for(seconds: float, iterator: tf.data.Iterator, take: _Take) -> tuple[int, float]:
    """Takes batches for `seconds`, one at least; returns how many and their decoding time."""
    end = time.perf_counter() + seconds
    batches, at_once, decode_s = 0, 1, 0.0
    while batches == 0 or time.perf_counter() < end:
        begun = time.perf_counter()
        decode_s += float(take(iterator, tf.constant(at_once)))
        batches += at_once
        short = time.perf_counter() - begun < _CALL_S
        at_once = at_once * 2 if short else max(1, at_once // 2)
    return batches, decode_s


def _taken(iterator: Any, count: tf.Tensor) -> tf.Tensor:
    """A `_Take`, as a graph function."""

    def one(at: tf.Tensor, decode_s: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        batch = iterator.get_next()
        if isinstance(batch, dict):
            decode_s += batch[DECODE_S]
        return at + 1, decode_s

    begin = (tf.constant(0), tf.zeros([], tf.float64))
    _, decode_s = tf.while_loop(lambda at, _: at < count, one, begin, parallel_iterations=1)
    return decode_s
