"""Writes a folder of JPEG files with one library, in two processes if the library can.

python scripts/bench/write_peers.py LIBRARY SOURCE OUTPUT     (see scripts/bench/all)

Prints the seconds from the first image to the last, without imports and the start of processes.
LIBRARY is one of WRITERS, and must be installed in the running Python.
"""

import multiprocessing
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PROCESSES = 2
# Path and class of each image.
Files = list[tuple[str, int]]
Write = Callable[[Files], None]


def tfrecord(output: Path, part: int) -> Write:
    """tf.train.Example and TFRecordWriter, as in TensorFlow's guides."""
    import tensorflow as tf

    def feature(value: bytes | int) -> Any:
        if isinstance(value, bytes):
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))

    def write(files: Files) -> None:
        with tf.io.TFRecordWriter(str(output / f"{part}.tfrecord")) as writer:
            for path, label in files:
                features = {"image": feature(Path(path).read_bytes()), "label": feature(label)}
                example = tf.train.Example(features=tf.train.Features(feature=features))
                writer.write(example.SerializeToString())

    return write


def array_record(output: Path, part: int) -> Write:
    """ArrayRecord, uncompressed, of the images alone."""
    from array_record.python.array_record_module import ArrayRecordWriter

    def write(files: Files) -> None:
        name = str(output / f"{part}.array_record")
        writer = ArrayRecordWriter(name, "group_size:1,uncompressed")
        for path, _ in files:
            writer.write(Path(path).read_bytes())
        writer.close()

    return write


def webdataset(output: Path, part: int) -> Write:
    """WebDataset's ShardWriter."""
    from webdataset import ShardWriter

    def write(files: Files) -> None:
        with ShardWriter(str(output / f"{part}-%03d.tar"), maxsize=250e6, verbose=0) as writer:
            for number, (path, label) in enumerate(files):
                key = f"{part}-{number}"
                writer.write({"__key__": key, "jpg": Path(path).read_bytes(), "cls": label})

    return write


def mosaic(output: Path, part: int) -> Write:
    """Mosaic streaming's MDSWriter."""
    from streaming import MDSWriter

    def write(files: Files) -> None:
        columns = {"image": "bytes", "label": "int"}
        with MDSWriter(out=str(output / str(part)), columns=columns) as writer:
            for path, label in files:
                writer.write({"image": Path(path).read_bytes(), "label": label})

    return write


def litdata(output: Path, part: int) -> Write:
    """LitData's chunk writer, which `litdata.optimize` starts in each process."""
    from litdata.streaming.writer import BinaryWriter

    folder = output / str(part)
    folder.mkdir()

    def write(files: Files) -> None:
        writer = BinaryWriter(str(folder), chunk_bytes=64 * 10**6)
        for number, (path, label) in enumerate(files):
            writer[number] = {"image": Path(path).read_bytes(), "label": label}
        writer.done()

    return write


def tfds(output: Path, files: Files) -> float:
    """A TFDS builder that stores the files unchanged; it has one process."""
    import tensorflow as tf
    import tensorflow_datasets

    tf.constant(0)  # otherwise TFDS imports TensorFlow while the clock runs
    began = 0.0

    class Images(tensorflow_datasets.core.GeneratorBasedBuilder):
        """The images."""

        VERSION = tensorflow_datasets.core.Version("1.0.0")

        def _info(self) -> Any:
            features = tensorflow_datasets.features.FeaturesDict(
                {
                    "image": tensorflow_datasets.features.Image(
                        shape=(None, None, 3), encoding_format="jpeg"
                    ),
                    "label": tensorflow_datasets.features.ClassLabel(num_classes=10),
                }
            )
            return tensorflow_datasets.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager: object) -> dict[str, object]:
            return {"train": self._generate_examples()}

        def _generate_examples(self) -> Iterator[tuple[int, dict[str, object]]]:
            nonlocal began
            began = time.perf_counter()
            for number, (path, label) in enumerate(files):
                yield number, {"image": path, "label": label}

    Images(data_dir=str(output)).download_and_prepare()
    return time.perf_counter() - began


def tenfold(output: Path, files: Files) -> float:
    """Tenfold, which also scans, shuffles, checksums and fingerprints the records."""
    from tenfold.launcher import python_api
    from tenfold.launcher.cli.commands import write

    source = Path(files[0][0]).parents[1]
    assert write  # imported here, so that the import is not measured
    began = time.perf_counter()
    python_api.write(str(source), str(output / "shards"), processes=PROCESSES)
    return time.perf_counter() - began


# PARTS write a part of the files in each of our processes; WHOLE start their own processes.
PARTS: dict[str, Callable[[Path, int], Write]] = {
    "tfrecord": tfrecord,
    "array_record": array_record,
    "webdataset": webdataset,
    "mosaic": mosaic,
    "litdata": litdata,
}
WHOLE: dict[str, Callable[[Path, Files], float]] = {"tenfold": tenfold, "tfds": tfds}
WRITERS = [*PARTS, *WHOLE]


def write_part(name: str, output: Path, part: int, files: Files, ready: Any, times: Any) -> None:
    write = PARTS[name](output, part)
    ready.wait()
    began = time.time()
    write(files)
    times.put((began, time.time()))


def in_parts(name: str, output: Path, files: Files) -> float:
    """Return the seconds from the first write of any process to the last write of any process."""
    spawn = multiprocessing.get_context("spawn")
    ready, times = spawn.Barrier(PROCESSES), spawn.Queue()
    processes = [
        spawn.Process(
            target=write_part, args=(name, output, part, files[part::PROCESSES], ready, times)
        )
        for part in range(PROCESSES)
    ]
    for process in processes:
        process.start()
    found = [times.get(timeout=600) for _ in processes]
    for process in processes:
        process.join()
    return max(end for _, end in found) - min(begin for begin, _ in found)


def main() -> None:
    name, source, output = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    classes = sorted(path.name for path in source.iterdir())
    files = [(str(path), classes.index(path.parent.name)) for path in source.glob("*/*.jpg")]
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    print(in_parts(name, output, files) if name in PARTS else WHOLE[name](output, files))


if __name__ == "__main__":
    main()
