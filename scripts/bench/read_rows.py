"""Compares libraries that read small records of numbers.

python scripts/bench/read_rows.py DATA [READER…] [--rows=N] [--rounds=N]   (see scripts/bench/read)

The records have 16 floats and a label. The readers take turns, each in its own process: batches of
256 on two threads, one epoch to warm up, then two that count. Prints the medians of the rounds and
Tenfold's ratios to them. Tenfold's reader checks and fingerprints each record as in training; the
others check what they check by default.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BATCH, THREADS, FEATURES, EPOCHS = 256, 2, 16, 2


# Reads an epoch, once the shards of so many rows in a folder are open.
Reader = Callable[[Path, int], Callable[[], None]]


def compare(
    script: str, readers: dict[str, Reader], make: Callable[[Path, int], None], *, rows: int
) -> None:
    """Run the command line of a comparison.

    Args:
      script: the path of the comparing script, which each reader is started by.
      readers: the readers by name, ``tenfold`` first.
      make: makes the data of a number of rows in a folder.
      rows: the default of --rows.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("readers", nargs="*", metavar="READER", help=", ".join(readers))
    parser.add_argument("--rows", type=int, default=rows)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print the medians as JSON")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(readers[options.one](options.data, options.rows), options.rows)))
        return
    make(options.data, options.rows)
    names = list(dict.fromkeys(["tenfold", *(options.readers or readers)]))
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for number in range(options.rounds):
        for name in names[:: -1 if number % 2 else 1]:
            command = [sys.executable, script, str(options.data), f"--rows={options.rows}"]
            done = subprocess.run([*command, f"--one={name}"], capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(f"{name} failed:\n{done.stderr[-2000:]}")
            found[name].append(json.loads(done.stdout.splitlines()[-1]))
    medians = {
        name: {key: statistics.median(one[key] for one in each) for key in each[0]}
        for name, each in found.items()
    }
    if options.json:
        print(json.dumps(medians))
        return
    ours = medians["tenfold"]
    for name, figures in medians.items():
        print(
            f"{name:<16} {figures['rate']:>10,.0f} records/s, {figures['cpu_us']:5.2f} µs CPU; "
            f"Tenfold is {ours['rate'] / figures['rate']:5.2f} × as fast, "
            f"by CPU {figures['cpu_us'] / ours['cpu_us']:5.2f} ×"
        )


def measure(run_epoch: Callable[[], None], rows: int) -> dict[str, float]:
    run_epoch()
    began, cpu = time.perf_counter(), time.process_time()
    for _ in range(EPOCHS):
        run_epoch()
    seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu
    return {"rate": rows * EPOCHS / seconds, "cpu_us": cpu_s / rows / EPOCHS * 1e6}


def make_rows(base: Path, rows: int) -> None:
    """Make the shards and the files of the other formats once."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from tenfold.data import LayoutPolicy, write_shards

    if (shards_of(base, rows) / "manifest.json").exists():
        return
    base.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    values = rng.normal(size=(rows, FEATURES)).astype(np.float32)
    label = rng.integers(0, 100, rows)
    source = base / f"read-rows-{rows}.npz"
    np.savez(source, values=values, label=label)
    write_shards(str(source), str(shards_of(base, rows)), policy=LayoutPolicy(num_workers=1))
    lists = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), FEATURES)
    pq.write_table(pa.table({"values": lists, "label": label}), parquet_of(base, rows))
    write_array_record(base / f"read-rows-{rows}.array_record", values, label)


def write_array_record(path: Path, values: Any, label: Any) -> None:
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(str(path), "group_size:1,uncompressed")
    for row, number in zip(values, label, strict=True):
        writer.write(row.tobytes() + number.tobytes())
    writer.close()


def shards_of(base: Path, rows: int) -> Path:
    return base / f"read-rows-{rows}"


def parquet_of(base: Path, rows: int) -> Path:
    return base / f"read-rows-{rows}.parquet"


def drain(dataset: Any, batches: int) -> Callable[[], None]:
    """Return a function that takes batches of an endless data set in a graph, as training does."""
    import tensorflow as tf

    iterator = iter(dataset)

    @tf.function(autograph=False)
    def take() -> Any:
        def body(step: Any) -> Any:
            batch = iterator.get_next()
            with tf.control_dependencies(tf.nest.flatten(batch, expand_composites=True)):
                return step + 1

        return tf.while_loop(
            lambda step: step < batches, body, [tf.constant(0)], parallel_iterations=1
        )

    return lambda: take() and None


def tenfold(base: Path, rows: int) -> Callable[[], None]:
    """Tenfold: shuffled within its lanes, with fingerprints."""
    return tenfold_of(shards_of(base, rows), rows)


def tenfold_of(folder: Path, rows: int) -> Callable[[], None]:
    """Tenfold on the shards in a folder."""
    from tenfold.data.reading.batches import training_batches
    from tenfold.data.reading.read_config import read_config
    from tenfold.data.reading.read_options import ReadOptions

    options = ReadOptions(threads=THREADS)
    config = read_config(str(folder), split="train", global_batch_size=BATCH, options=options)
    return drain(training_batches(config), rows // BATCH)


def tf_data(base: Path, rows: int, *, shuffle: bool) -> Callable[[], None]:
    """tf.data: large reads, files in turn on two threads, a parse of whole batches."""
    return tf_data_of(shards_of(base, rows), rows, tf_features(), shuffle=shuffle)


def tf_data_of(
    shards: Path, rows: int, features: dict[str, Any], *, shuffle: bool
) -> Callable[[], None]:
    """tf.data on shards whose records have `features`."""
    import tensorflow as tf

    files = sorted(str(path) for path in shards.glob("*.tfrecord"))
    records = tf.data.Dataset.from_tensor_slices(files).interleave(
        lambda name: tf.data.TFRecordDataset(name, buffer_size=1 << 20),
        cycle_length=THREADS, block_length=BATCH, num_parallel_calls=THREADS,
    )  # fmt: skip
    records = records.shuffle(rows) if shuffle else records
    batches = records.repeat().batch(BATCH, drop_remainder=True)
    batches = batches.map(
        lambda batch: tf.io.parse_example(batch, features), num_parallel_calls=THREADS
    )
    options = tf.data.Options()
    options.autotune.enabled = False
    options.threading.private_threadpool_size = THREADS
    options.threading.max_intra_op_parallelism = 1
    return drain(batches.prefetch(2).with_options(options), rows // BATCH)


def tf_features() -> dict[str, Any]:
    import tensorflow as tf

    return {
        "values": tf.io.FixedLenFeature([FEATURES], tf.float32),
        "label": tf.io.FixedLenFeature([], tf.int64),
    }


def tfds(base: Path, rows: int) -> Callable[[], None]:
    """TFDS on the same shards: files and a buffer of 10,000 records shuffled."""
    import tensorflow as tf
    import tensorflow_datasets

    builder = tensorflow_datasets.builder_from_directory(str(shards_of(base, rows)))
    dataset = builder.as_dataset(split="train", shuffle_files=True).shuffle(10_000)
    dataset = dataset.repeat().batch(BATCH, drop_remainder=True)
    return drain(dataset.prefetch(tf.data.AUTOTUNE), rows // BATCH)


def grain(base: Path, rows: int) -> Callable[[], None]:
    """Grain on ArrayRecord, one record a row of bytes: global shuffle, numpy to decode it."""
    import grain.python as pygrain
    import numpy as np

    source = pygrain.ArrayRecordDataSource([str(base / f"read-rows-{rows}.array_record")])
    seeds = iter(range(1000))

    def decode(record: bytes) -> tuple[Any, Any]:
        return np.frombuffer(record, np.float32, FEATURES), np.frombuffer(record[-8:], np.int64)[0]

    def epoch() -> None:
        dataset = pygrain.MapDataset.source(source).shuffle(seed=next(seeds)).map(decode)
        options = pygrain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=512)
        for _ in dataset.to_iter_dataset(options).batch(BATCH, drop_remainder=True):
            pass

    return epoch


def parquet(base: Path, rows: int, *, shuffle: bool) -> Callable[[], None]:
    """Parquet by pyarrow to numpy: in order, or all in memory and taken in random order."""
    import numpy as np
    import pyarrow.parquet as pq

    path, rng = parquet_of(base, rows), np.random.default_rng(0)

    def in_order() -> None:
        for batch in pq.ParquetFile(path).iter_batches(batch_size=BATCH):
            batch["values"].values.to_numpy().reshape(-1, FEATURES)
            batch["label"].to_numpy()

    def shuffled() -> None:
        table = pq.read_table(path).combine_chunks()
        values = table["values"].chunk(0).values.to_numpy().reshape(-1, FEATURES)
        label, order = table["label"].to_numpy(), rng.permutation(rows)
        for begin in range(0, rows - BATCH + 1, BATCH):
            chosen = order[begin : begin + BATCH]
            _ = values[chosen], label[chosen]

    return shuffled if shuffle else in_order


READERS: dict[str, Reader] = {
    "tenfold": tenfold,
    "tf_data_shuffled": lambda base, rows: tf_data(base, rows, shuffle=True),
    "tf_data": lambda base, rows: tf_data(base, rows, shuffle=False),
    "tfds": tfds,
    "grain": grain,
    "parquet_shuffled": lambda base, rows: parquet(base, rows, shuffle=True),
    "parquet": lambda base, rows: parquet(base, rows, shuffle=False),
}

if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    compare(__file__, READERS, make_rows, rows=500_000)
