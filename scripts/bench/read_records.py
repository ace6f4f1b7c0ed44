"""Compares libraries that read records without decoding: raw bytes, and parsed features.

python scripts/bench/read_records.py DATA small|large [--rounds=N]   (see scripts/bench/read)

Uses the images, batches and threads of scripts/bench/read_images.py. `raw` yields the bytes of
shuffled records in batches; `parsed` yields the encoded image and, if the format has it, the
label. Libraries without such a stage are left out. Ratios are to the first reader of the stage,
tf.data as in TensorFlow's guides.
"""

import argparse
import glob
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import read_images
from read_images import BATCH, THREADS, Epochs, Medians

FEATURES = ("image", "label")


def lists(records: Iterable[Any]) -> Iterable[list[Any]]:
    """Yield the records in lists of BATCH."""
    batch = []
    for record in records:
        batch.append(record)
        if len(batch) == BATCH:
            yield batch
            batch = []


def tenfold_raw(data: Path, kind: str) -> Epochs:
    return tenfold(data, kind, parsed=False)


def tenfold_parsed(data: Path, kind: str) -> Epochs:
    return tenfold(data, kind, parsed=True)


def tenfold(data: Path, kind: str, *, parsed: bool) -> Epochs:
    """Tenfold's own order, shuffled within its lanes; one iterator for all epochs."""
    from tenfold.data.reading.batches import raw_records, reading_options
    from tenfold.data.reading.dataset import steps_per_epoch
    from tenfold.data.reading.read_config import read_config
    from tenfold.data.reading.read_options import ReadOptions
    from tenfold.data.reading.records.parse_features import parse_features

    shards, side = f"{data}/{kind}-shards", read_images.SIDE
    options = ReadOptions(
        image_size=(side, side), threads=THREADS, shuffle_buffer_bytes=16 * 10**6
    )
    config = read_config(shards, split="train", global_batch_size=BATCH, options=options)
    dataset = raw_records(config).batch(BATCH, drop_remainder=True)
    if parsed:
        dataset = dataset.map(
            lambda records: parse_features(records, config.spec.features, config.spec.defaults),
            num_parallel_calls=THREADS,
        )
    iterator = iter(dataset.prefetch(2).with_options(reading_options(THREADS)))
    steps = steps_per_epoch(shards, global_batch_size=BATCH)
    taken = read_images.in_graph()
    return lambda: taken(iterator, steps)


def tf_records(data: Path, kind: str) -> Any:
    """Shuffled records, as in TensorFlow's guides."""
    import tensorflow as tf

    names = sorted(glob.glob(f"{data}/{kind}-shards/*.tfrecord"))
    dataset = tf.data.Dataset.from_tensor_slices(names).shuffle(len(names))
    dataset = dataset.interleave(tf.data.TFRecordDataset, num_parallel_calls=tf.data.AUTOTUNE)
    return dataset.shuffle(1000)


def tf_features() -> dict[str, Any]:
    import tensorflow as tf

    kinds = (tf.string, tf.int64)
    return {n: tf.io.FixedLenFeature([], k) for n, k in zip(FEATURES, kinds, strict=True)}


def tf_data_raw(data: Path, kind: str) -> Epochs:
    dataset = tf_records(data, kind).batch(BATCH, drop_remainder=True)
    return read_images.every_epoch(dataset.prefetch(2))


def tf_data_parsed(data: Path, kind: str) -> Epochs:
    import tensorflow as tf

    features = tf_features()
    dataset = tf_records(data, kind).map(
        lambda record: tf.io.parse_single_example(record, features),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    dataset = dataset.batch(BATCH, drop_remainder=True)
    return read_images.every_epoch(dataset.prefetch(tf.data.AUTOTUNE))


def tf_data_tuned_raw(data: Path, kind: str) -> Epochs:
    return tf_data_tuned(data, kind, parsed=False)


def tf_data_tuned_parsed(data: Path, kind: str) -> Epochs:
    return tf_data_tuned(data, kind, parsed=True)


def tf_data_tuned(data: Path, kind: str, *, parsed: bool) -> Epochs:
    """Pinned threads, large reads, batches parsed as a whole."""
    import tensorflow as tf

    names = sorted(glob.glob(f"{data}/{kind}-shards/*.tfrecord"))
    dataset = tf.data.Dataset.from_tensor_slices(names).shuffle(len(names)).interleave(
        lambda name: tf.data.TFRecordDataset(name, buffer_size=1 << 20),
        cycle_length=4, block_length=16, num_parallel_calls=THREADS,
    )  # fmt: skip
    dataset = dataset.shuffle(1000).batch(BATCH, drop_remainder=True)
    if parsed:
        features = tf_features()
        dataset = dataset.map(
            lambda records: tf.io.parse_example(records, features), num_parallel_calls=THREADS
        )
    options = tf.data.Options()
    options.autotune.enabled = False
    options.threading.private_threadpool_size = THREADS
    options.threading.max_intra_op_parallelism = 1
    return read_images.every_epoch(dataset.prefetch(2).with_options(options))


def tfds_parsed(data: Path, kind: str) -> Epochs:
    import tensorflow as tf
    import tensorflow_datasets

    builder = tensorflow_datasets.builder_from_directory(f"{data}/{kind}-shards")
    decoders = {"image": tensorflow_datasets.decode.SkipDecoding()}
    dataset = builder.as_dataset(split="train", shuffle_files=True, decoders=decoders)
    dataset = dataset.shuffle(1000).batch(BATCH, drop_remainder=True).prefetch(tf.data.AUTOTUNE)
    return read_images.every_epoch(dataset)


def grain_raw(data: Path, kind: str) -> Epochs:
    """The ArrayRecord file has the encoded images only."""
    import grain.python as pygrain

    read_images.grain(data, kind)  # writes the file if it is missing
    source = pygrain.ArrayRecordDataSource([f"{data}/{kind}.array_record"])
    seeds = iter(range(1000))

    def epoch() -> Iterable[object]:
        dataset = pygrain.MapDataset.source(source).shuffle(seed=next(seeds))
        options = pygrain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=128)
        return lists(dataset.to_iter_dataset(options))

    return epoch


def webdataset_parsed(data: Path, kind: str) -> Epochs:
    import webdataset

    read_images.webdataset(data, kind)
    tars = [f"{data}/{kind}-{part}.tar" for part in range(10)]
    dataset = webdataset.WebDataset(tars, shardshuffle=10).shuffle(1000).to_tuple("jpg")
    return lambda: lists(dataset)


STAGES = {
    "raw": {
        "tf_data": tf_data_raw,
        "tf_data_tuned": tf_data_tuned_raw,
        "grain": grain_raw,
        "tenfold": tenfold_raw,
    },
    "parsed": {
        "tf_data": tf_data_parsed,
        "tf_data_tuned": tf_data_tuned_parsed,
        "tfds": tfds_parsed,
        "webdataset": webdataset_parsed,
        "tenfold": tenfold_parsed,
    },
}


def medians_of(data: str, kind: str, stage: str, rounds: int) -> Medians:
    """Return the medians of each reader over all rounds, without its first epoch."""
    results: dict[str, list[dict[str, float]]] = {name: [] for name in STAGES[stage]}
    for number in range(rounds):
        for name in list(results)[:: -1 if number % 2 else 1]:
            command = [sys.executable, __file__, data, kind, "--one", f"{stage}:{name}"]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(f"{stage} {name} failed:\n{done.stderr[-2000:]}")
            results[name] += json.loads(done.stdout.splitlines()[-1])[1:]
    return {
        name: {key: statistics.median(epoch[key] for epoch in found) for key in found[0]}
        for name, found in results.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("kind", choices=("small", "large"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one")
    options = parser.parse_args()
    if options.one:
        stage, _, name = options.one.partition(":")
        epochs = STAGES[stage][name](Path(options.data), options.kind)
        print(json.dumps(read_images.measure_epochs(epochs, count=8)))
        return
    for stage in STAGES:
        medians = medians_of(options.data, options.kind, stage, options.rounds)
        base = medians["tf_data"]
        for name, median in medians.items():
            print(
                f"{options.kind} {stage:<7}{name:<14}{median['rate']:>9,.0f} records/s "
                f"{median['rate'] / base['rate']:>5.2f}   {median['cpu_ms']:.4f} CPU ms "
                f"{base['cpu_ms'] / median['cpu_ms']:>5.2f}"
            )


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    main()
