"""Compares libraries that read the same images: decode, resize, batch.

python scripts/bench/read_images.py DATA small|large [READER…]     (see scripts/bench/read)

DATA/KIND has the images in class folders, DATA/KIND-shards has them as shards written by Tenfold.
The readers take turns, each in its own process. Each reads three epochs, shuffled, in batches of
32, resized to 224 × 224, on two threads or processes. The table shows images per second, CPU
milliseconds per image and the delay of the first batch: medians of the last two epochs of all
rounds. Batches of TensorFlow data sets are taken in a graph function, as training steps take them,
because a Python loop costs 0.4 ms per batch. `--json` prints the medians as one JSON object;
`--rounds=N` sets the number of rounds.
"""

import argparse
import glob
import json
import os
import statistics
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

BATCH, SIDE, THREADS, EPOCHS, ROUNDS = 32, 224, 2, 3, 2
# Batches per call of the graph function, after the first call.
BATCHES_PER_CALL = 16


def files_of(data: Path, kind: str) -> list[str]:
    return sorted(glob.glob(f"{data}/{kind}/*/*.jpg"))


def batched(images: Iterable[Any]) -> Iterator[Any]:
    import numpy as np

    batch: list[Any] = []
    for image in images:
        batch.append(image)
        if len(batch) == BATCH:
            yield np.stack(batch)
            batch = []


def turbo(data: bytes) -> object:
    import cv2
    import simplejpeg

    image = simplejpeg.decode_jpeg(data, "RGB", fastdct=True)
    return cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)


# Each reader returns a function that yields the batches of the next epoch, or counts of batches.
Epochs = Callable[[], Iterable[object]]
# For each reader: images per second, CPU ms per image, delay of the first batch in seconds.
Medians = dict[str, dict[str, float]]


def in_graph() -> Callable[..., Iterator[int]]:
    """Return a function that takes batches from a TensorFlow iterator and yields their counts.

    It takes up to `steps` batches, or all: one in the first call of the graph function, then
    BATCHES_PER_CALL per call.
    """
    import tensorflow as tf

    @tf.function(autograph=False)
    def take(iterator: Any, max_count: Any) -> Any:
        def take_one(count: Any, _: Any) -> tuple[Any, Any]:
            has_batch = iterator.get_next_as_optional().has_value()
            return count + tf.cast(has_batch, tf.int32), has_batch

        begin = (tf.constant(0), tf.constant(True))
        more = lambda count, has_batch: has_batch & (count < max_count)  # noqa: E731
        return tf.while_loop(more, take_one, begin, parallel_iterations=1)[0]

    def taken(iterator: Any, steps: int = sys.maxsize) -> Iterator[int]:
        max_count = 1
        while steps and max_count:
            count = int(take(iterator, tf.constant(min(max_count, steps))))
            yield count
            max_count, steps = BATCHES_PER_CALL if count == max_count else 0, steps - count

    return taken


def every_epoch(dataset: Any) -> Epochs:
    """Epochs of a finite TensorFlow data set."""
    taken = in_graph()
    return lambda: taken(iter(dataset))


def ceiling(data: Path, kind: str) -> Epochs:
    """libjpeg-turbo and a SIMD resize on two threads, without reading or batching: the bound."""
    from concurrent.futures import ThreadPoolExecutor

    encoded = [Path(name).read_bytes() for name in files_of(data, kind)]
    groups = [
        encoded[first : first + BATCH] for first in range(0, len(encoded) - BATCH + 1, BATCH)
    ]
    pool = ThreadPoolExecutor(THREADS)
    return lambda: pool.map(lambda group: [turbo(data) for data in group], groups)


def tenfold(data: Path, kind: str, decoder: str = "turbo") -> Epochs:
    from tenfold.data.reading.batches import training_batches
    from tenfold.data.reading.dataset import steps_per_epoch
    from tenfold.data.reading.read_config import read_config
    from tenfold.data.reading.read_options import ReadOptions

    shards = f"{data}/{kind}-shards"
    options = ReadOptions(
        image_size=(SIDE, SIDE), threads=THREADS, decoder=decoder,
        shuffle_buffer_bytes=64 * 10**6,
    )  # fmt: skip
    config = read_config(shards, split="train", global_batch_size=BATCH, options=options)
    iterator = iter(training_batches(config, tail=True))
    steps = steps_per_epoch(shards, global_batch_size=BATCH)
    tail = config.shards.tail_steps
    taken = in_graph()

    def epoch() -> Iterator[object]:
        yield from taken(iterator, steps)
        for _ in range(tail):
            next(iterator)

    return epoch


def tenfold_tf(data: Path, kind: str) -> Epochs:
    return tenfold(data, kind, decoder="tf")


def tf_data(data: Path, kind: str) -> Epochs:
    """tf.data as in TensorFlow's guides: interleave, shuffle, parallel map, batch, prefetch."""
    import tensorflow as tf

    auto = tf.data.AUTOTUNE
    names = sorted(glob.glob(f"{data}/{kind}-shards/*.tfrecord"))
    features = {
        "image": tf.io.FixedLenFeature([], tf.string),
        "label": tf.io.FixedLenFeature([], tf.int64),
    }

    def parse(record: object) -> object:
        values = tf.io.parse_single_example(record, features)
        image = tf.io.decode_jpeg(values["image"], channels=3)
        return tf.image.resize(image, (SIDE, SIDE)), values["label"]

    dataset = tf.data.Dataset.from_tensor_slices(names).shuffle(len(names))
    dataset = dataset.interleave(tf.data.TFRecordDataset, num_parallel_calls=auto).shuffle(1000)
    dataset = dataset.map(parse, num_parallel_calls=auto).batch(BATCH, drop_remainder=True)
    return every_epoch(dataset.prefetch(auto))


def tf_data_tuned(data: Path, kind: str) -> Epochs:
    """The fastest tf.data pipeline that we know: pinned threads, batched parsing, uint8."""
    import tensorflow as tf

    names = sorted(glob.glob(f"{data}/{kind}-shards/*.tfrecord"))
    features = {
        "image": tf.io.FixedLenFeature([], tf.string),
        "label": tf.io.FixedLenFeature([], tf.int64),
    }

    def decode(encoded: object) -> object:
        image = tf.image.resize(tf.io.decode_jpeg(encoded, channels=3), (SIDE, SIDE))
        return tf.cast(tf.round(image), tf.uint8)

    dataset = tf.data.Dataset.from_tensor_slices(names).shuffle(len(names))
    dataset = dataset.interleave(
        lambda name: tf.data.TFRecordDataset(name, buffer_size=1 << 20),
        cycle_length=4, block_length=16, num_parallel_calls=THREADS,
    )  # fmt: skip
    dataset = dataset.shuffle(1000).batch(256, drop_remainder=False)
    dataset = dataset.map(lambda records: tf.io.parse_example(records, features)).unbatch()
    dataset = dataset.map(
        lambda features: (decode(features["image"]), features["label"]), num_parallel_calls=THREADS
    )
    dataset = dataset.batch(BATCH, drop_remainder=True).prefetch(2)
    options = tf.data.Options()
    options.autotune.enabled = False
    options.threading.private_threadpool_size = THREADS
    options.threading.max_intra_op_parallelism = 1
    return every_epoch(dataset.with_options(options))


def tfds(data: Path, kind: str) -> Epochs:
    """TFDS, on the shards that Tenfold wrote."""
    import tensorflow as tf
    import tensorflow_datasets

    builder = tensorflow_datasets.builder_from_directory(f"{data}/{kind}-shards")
    dataset = builder.as_dataset(split="train", shuffle_files=True).shuffle(1000)
    dataset = dataset.map(
        lambda features: (tf.image.resize(features["image"], (SIDE, SIDE)), features["label"]),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    return every_epoch(dataset.batch(BATCH, drop_remainder=True).prefetch(tf.data.AUTOTUNE))


def grain(data: Path, kind: str) -> Epochs:
    """Grain on ArrayRecord with the fast decoder, two threads."""
    import grain.python as pygrain
    from array_record.python.array_record_module import ArrayRecordWriter

    path = f"{data}/{kind}.array_record"
    if not os.path.exists(path):
        writer = ArrayRecordWriter(path, "group_size:1,uncompressed")
        for name in files_of(data, kind):
            writer.write(Path(name).read_bytes())
        writer.close()
    source = pygrain.ArrayRecordDataSource([path])
    seeds = iter(range(1000))

    def epoch() -> Iterable[object]:
        dataset = pygrain.MapDataset.source(source).shuffle(seed=next(seeds)).map(turbo)
        options = pygrain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=128)
        return dataset.to_iter_dataset(options).batch(BATCH, drop_remainder=True)

    return epoch


def webdataset(data: Path, kind: str) -> Epochs:
    """WebDataset over ten tars with the fast decoder, in one process (it has no threads)."""
    import webdataset

    names = files_of(data, kind)
    tars = [f"{data}/{kind}-{part}.tar" for part in range(10)]
    for part, tar in enumerate(tars):
        if not os.path.exists(tar):
            with tarfile.open(tar, "w") as archive:
                for name in names[part::10]:
                    archive.add(name, arcname=Path(name).name)
    dataset = webdataset.WebDataset(tars, shardshuffle=10).shuffle(1000).to_tuple("jpg")
    return lambda: batched(turbo(data) for (data,) in dataset)


def torch_loader(dataset: Any, loader: Callable[..., Any]) -> Epochs:
    """Epochs of a PyTorch loader whose two processes decode."""
    batches = loader(dataset, batch_size=BATCH, num_workers=THREADS, drop_last=True)
    return lambda: batches


def decoded(sample: dict[str, Any]) -> object:
    return turbo(bytes(sample["image"]))


def mosaic(data: Path, kind: str) -> Epochs:
    """Mosaic streaming with the fast decoder and PyTorch's loader, two processes."""
    import torch
    from streaming import MDSWriter, StreamingDataset

    path = f"{data}/{kind}-mds"
    if not os.path.exists(path):
        with MDSWriter(out=path, columns={"image": "bytes"}) as writer:
            for name in files_of(data, kind):
                writer.write({"image": Path(name).read_bytes()})

    class Images(StreamingDataset):
        def __getitem__(self, index: int) -> object:
            return decoded(super().__getitem__(index))

    dataset = Images(local=path, batch_size=BATCH, shuffle=True)
    return torch_loader(dataset, torch.utils.data.DataLoader)


def encoded_file(name: str) -> dict[str, object]:
    return {"image": Path(name).read_bytes()}


def litdata(data: Path, kind: str) -> Epochs:
    """LitData with the fast decoder and its own loader, two processes."""
    from litdata import StreamingDataLoader, StreamingDataset, optimize

    path = f"{data}/{kind}-litdata"
    if not os.path.exists(path):
        optimize(
            encoded_file, files_of(data, kind), path, chunk_bytes="16MB", num_workers=1,
            verbose=False,
        )  # fmt: skip

    dataset = StreamingDataset(path, shuffle=True, transform=decoded)
    return torch_loader(dataset, StreamingDataLoader)


READERS: dict[str, Callable[[Path, str], Epochs]] = {
    "ceiling": ceiling,
    "tenfold": tenfold,
    "tenfold_tf": tenfold_tf,
    "tf_data": tf_data,
    "tf_data_tuned": tf_data_tuned,
    "tfds": tfds,
    "grain": grain,
    "webdataset": webdataset,
    "mosaic": mosaic,
    "litdata": litdata,
}
# Readers that need PyTorch, which is installed in build/bench_torch.
TORCH = ("mosaic", "litdata")


def python_of(name: str) -> str:
    """Return the interpreter of the environment that has a reader's library."""
    if name not in TORCH:
        return sys.executable
    return str(Path(sys.executable).absolute().parents[2] / "bench_torch" / "bin" / "python")


def cpu_seconds() -> float:
    """Return the CPU time of this process and of its children that have ended."""
    return sum(os.times()[:4])


def measure(data: Path, kind: str, name: str) -> list[dict[str, float]]:
    """Return rate, CPU ms per image and the delay of the first batch, for each epoch."""
    return measure_epochs(READERS[name](data, kind))


def measure_epochs(epochs: Epochs, count: int = EPOCHS) -> list[dict[str, float]]:
    """Return the same for a reader that has been prepared."""
    found = []
    for _ in range(count):
        began, cpu, first, batches = time.perf_counter(), cpu_seconds(), 0.0, 0
        for batch in epochs():
            first = first or time.perf_counter() - began
            batches += batch if isinstance(batch, int) else 1
        seconds, cpu = time.perf_counter() - began, cpu_seconds() - cpu
        images = batches * BATCH
        found.append({"rate": images / seconds, "cpu_ms": 1e3 * cpu / images, "first_s": first})
    return found


def medians_of(data: Path, kind: str, names: list[str], rounds: int) -> Medians:
    """Return the medians of each reader over all rounds, without readers that failed."""
    results: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            done = subprocess.run(
                [python_of(name), __file__, str(data), kind, "--one", name],
                capture_output=True,
                text=True,
            )
            if done.returncode:
                print(f"{name} failed:\n{done.stderr[-2000:]}", file=sys.stderr)
                continue
            results[name] += json.loads(done.stdout.splitlines()[-1])[1:]
    return {
        name: {key: statistics.median(epoch[key] for epoch in found) for key in found[0]}
        for name, found in results.items()
        if found
    }


def table(medians: Medians) -> str:
    """Return the medians as a table, with ratios to the ceiling."""
    top = medians["ceiling"]
    lines = [
        f"{'reader':<15}{'images/s':>11}{'of ceiling':>11}{'CPU ms':>8}{'of ceiling':>11}"
        f"{'first batch s':>15}"
    ]
    lines += [
        f"{name:<15}{median['rate']:>11,.0f}{median['rate'] / top['rate']:>11.2f}"
        f"{median['cpu_ms']:>8.3f}{top['cpu_ms'] / median['cpu_ms']:>11.2f}"
        f"{median['first_s']:>15.2f}"
        for name, median in medians.items()
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("kind", choices=["small", "large"])
    parser.add_argument("readers", nargs="*", help=", ".join(READERS))
    parser.add_argument("--one", help="measure this reader, here")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.data, options.kind, options.one)))
        return
    chosen = [name for name in options.readers or READERS if name != "ceiling"]
    medians = medians_of(options.data, options.kind, ["ceiling", *chosen], options.rounds)
    if options.json:
        print(json.dumps(medians))
    else:
        print(f"{options.kind}: {len(files_of(options.data, options.kind)):,} images")
        print(table(medians))


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    main()
