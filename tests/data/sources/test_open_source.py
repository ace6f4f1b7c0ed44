"""A contract suite over every kind of source, and the special cases of each kind."""

import csv
import gzip
import io
import json
import os
import pickle
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from tenfold.data.errors import UserError
from tenfold.data.format.example import decode_example, encode_example
from tenfold.data.format.manifest import Feature
from tenfold.data.format.schema import merge_all
from tenfold.data.format.tfrecord import FRAME_BYTES, frame, read_records
from tenfold.data.planning.layout import LayoutPolicy
from tenfold.data.planning.splits.own_splits import OwnSplit
from tenfold.data.planning.splits.split_fractions import parse_splits
from tenfold.data.sources.base import SourceOptions
from tenfold.data.sources.open_source import open_source
from tenfold.data.storage.read_manifest import read_manifest
from tenfold.data.writing.encode_columns import encode_columns
from tenfold.data.writing.write_shards import write_shards

EXAMPLES = 12
CLASSES = ["cat", "dog", "é t"]

Make = Callable[..., Any]


@pytest.fixture
def images(tmp_path: Path, make_image: Callable[..., bytes]) -> list[Path]:
    folder = tmp_path / "images; it's"
    folder.mkdir()
    for index in range(EXAMPLES):
        (folder / f"{index}.png").write_bytes(make_image(seed=index))
    return [folder / f"{index}.png" for index in range(EXAMPLES)]


def folder_source(tmp_path: Path, images: list[Path]) -> Any:
    for index, path in enumerate(images):
        target = tmp_path / "tree" / CLASSES[index % 3] / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    return str(tmp_path / "tree")


def table_rows(tmp_path: Path, images: list[Path]) -> list[dict[str, Any]]:
    return [
        {
            "path": os.path.relpath(path, tmp_path),
            "label": CLASSES[index % 3],
            "age": index,
            "weight": index / 4,
            "zip": f"0{index}",
        }
        for index, path in enumerate(images)
    ]


def csv_source(tmp_path: Path, images: list[Path], suffix: str = ".csv") -> Any:
    rows = table_rows(tmp_path, images)
    with open(tmp_path / f"table{suffix}", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if suffix == ".tsv" else ",")
        writer.writeheader()
        writer.writerows(rows)
    return str(tmp_path / f"table{suffix}")


def tsv_source(tmp_path: Path, images: list[Path]) -> Any:
    return csv_source(tmp_path, images, ".tsv")


def jsonl_source(tmp_path: Path, images: list[Path]) -> Any:
    rows = table_rows(tmp_path, images)
    lines = [json.dumps({**row, "vector": [1.5, 2.5]}) + "\n" for row in rows]
    (tmp_path / "table.jsonl").write_text("".join(lines))
    return str(tmp_path / "table.jsonl")


def parquet_source(tmp_path: Path, images: list[Path]) -> Any:
    table = pa.Table.from_pylist(table_rows(tmp_path, images))
    parquet.write_table(table, tmp_path / "table.parquet")
    return str(tmp_path / "table.parquet")


def arrow_source(tmp_path: Path, images: list[Path]) -> Any:
    """Images as Hugging Face stores them, and a list that varies, in two batches."""
    rows = [
        {
            "image": {"bytes": path.read_bytes(), "path": None},
            "label": CLASSES[index % 3],
            "varied": [index] * (index % 4),
        }
        for index, path in enumerate(images)
    ]
    table = pa.Table.from_pylist(rows)
    with pa.ipc.new_stream(str(tmp_path / "table.arrow"), table.schema) as writer:
        writer.write_table(table, max_chunksize=5)
    return str(tmp_path / "table.arrow")


def parts_source(tmp_path: Path, images: list[Path]) -> Any:
    """Compressed CSV files in hive partitions."""
    rows = table_rows(tmp_path, images)
    for part in range(3):
        folder = tmp_path / "parts" / f"label={CLASSES[part]}"
        folder.mkdir(parents=True)
        with gzip.open(folder / "rows.csv.gz", "wt", newline="") as file:
            writer = csv.DictWriter(file, ["path", "age", "weight", "zip"])
            writer.writeheader()
            for row in rows[part::3]:
                del row["label"]
                writer.writerow(row | {"path": f"../{row['path']}"})
    return str(tmp_path / "parts")


def npz_source(tmp_path: Path, images: list[Path]) -> Any:
    from PIL import Image

    x = np.stack([np.asarray(Image.open(path)) for path in images])
    y = np.array([CLASSES[index % 3] for index in range(EXAMPLES)])
    np.savez(tmp_path / "arrays.npz", x=x, y=y, extra=np.ones((EXAMPLES, 2, 3), np.float32))
    return str(tmp_path / "arrays.npz")


def npy_source(tmp_path: Path, images: list[Path]) -> Any:
    np.save(tmp_path / "x.npy", np.arange(EXAMPLES * 4, dtype=np.float64).reshape(EXAMPLES, 4))
    return str(tmp_path / "x.npy")


def tfrecord_source(tmp_path: Path, images: list[Path]) -> Any:
    folder = tmp_path / "records"
    folder.mkdir()
    for part in range(5):  # of different lengths, the last one empty
        chosen = range(EXAMPLES)[part * 4 : part * 4 + 4]
        data = b"".join(
            frame(encode_example({"image": images[i].read_bytes(), "label": i % 3, "v": [i] * 3}))
            for i in chosen
        )
        (folder / f"part-{part}.tfrecord").write_bytes(data)
    return str(folder)


def webdataset_source(tmp_path: Path, images: list[Path]) -> Any:
    folder = tmp_path / "tars"
    folder.mkdir()
    for part in range(3):
        with tarfile.open(folder / f"{part}.tar", "w") as archive:
            for index in range(part, EXAMPLES, 3):
                fields = {"png": images[index].read_bytes(), "cls": CLASSES[index % 3].encode()}
                for field, data in fields.items():
                    info = tarfile.TarInfo(f"{index}.{field}")
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))
    return str(folder)


def iterable_source(tmp_path: Path, images: list[Path]) -> Any:
    return [
        {"image": path.read_bytes(), "label": CLASSES[index % 3], "v": np.ones((2, 2))}
        for index, path in enumerate(images)
    ]


def reference_source(tmp_path: Path, images: list[Path]) -> Any:
    (tmp_path / "mine.py").write_text(
        "from pathlib import Path\n"
        f"FILES = {[str(path) for path in images]!r}\n"
        "def examples():\n"
        "    for i, file in enumerate(FILES):\n"
        "        yield Path(file).read_bytes(), i % 3\n"
    )
    return f"{tmp_path / 'mine.py'}:examples"


SOURCES = [
    folder_source,
    csv_source,
    tsv_source,
    jsonl_source,
    parquet_source,
    arrow_source,
    parts_source,
    npz_source,
    npy_source,
    tfrecord_source,
    webdataset_source,
    iterable_source,
    reference_source,
]


@pytest.mark.parametrize("make", SOURCES)
def test_source_contract(make: Make, tmp_path: Path, images: list[Path]) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    spec = make(tmp_path, images)
    source = open_source(spec, scratch)
    stats = source.stats
    assert stats.num_examples == EXAMPLES
    records = [source.encoded(index) for index in range(EXAMPLES)]
    sizes = [len(record.payload) + FRAME_BYTES for record in records]
    # Sizes are exact, except for sources that encode images while writing.
    assert sum(sizes) == pytest.approx(stats.total_bytes, rel=0.01)
    assert max(sizes) == pytest.approx(stats.max_record_bytes, rel=0.05)
    # A pickled copy gives the same records, in any order.
    copy = pickle.loads(pickle.dumps(source))  # noqa: S301
    for index in reversed(range(EXAMPLES)):
        assert copy.encoded(index) == records[index]
    assert len({copy.name(index) for index in range(EXAMPLES)}) == EXAMPLES
    # The values of an example, packed again, are the same record.
    for index in (0, EXAMPLES - 1):
        repacked = decode_example(encode_example(source.features(index)))
        if make is not npz_source:  # its images are arrays until they are stored
            assert repacked == decode_example(records[index].payload)
    _check_columns(copy, records)
    # A second scan gives the same fingerprint.
    again = tmp_path / "scratch-2"
    again.mkdir()
    assert open_source(spec, again).stats.fingerprint == stats.fingerprint


def _check_columns(source: Any, records: list[Any]) -> None:
    """Where a source offers columns, they make the bytes of the single records."""
    indices = np.array([3, 0, EXAMPLES - 1, 3])
    columns = source.columns(indices) if hasattr(source, "columns") else None
    if columns is None:
        return
    block = encode_columns(columns)
    chosen = [records[index] for index in indices]
    assert block.frames == b"".join(frame(record.payload) for record in chosen)
    merged = merge_all(schema for _, schema in block.schemas)
    assert merged == merge_all(record.schema for record in chosen)


@pytest.mark.parametrize("make", [make for make in SOURCES if make is not npy_source])
def test_written_records_equal_the_source(make: Make, tmp_path: Path, images: list[Path]) -> None:
    output = tmp_path / "out"
    result = write_shards(make(tmp_path, images), str(output), policy=LayoutPolicy(num_workers=2))
    manifest = result.manifest
    assert manifest is not None
    found = []
    for shard in manifest.splits[0].shards:
        with open(output / shard.name, "rb") as file:
            found += [decode_example(data) for _, data in read_records(file, shard.bytes)]
    got = {record["image"][1][0]: record["label"][1] for record in found}
    if make is npz_source:
        assert len(got) == EXAMPLES
    else:
        expected = {path.read_bytes(): [i % 3] for i, path in enumerate(images)}
        assert got == expected
    assert manifest.splits[0].label_counts == (4, 4, 4)
    assert manifest.feature("image") == Feature("image", "image", (8, 8, 1))
    assert manifest.feature("label") == Feature("label", "int64")
    named = make not in (tfrecord_source, reference_source)
    assert manifest.label_names == (tuple(CLASSES) if named else ())
    shapes = {feature.name: (feature.kind, feature.shape) for feature in manifest.features}
    for name, expected_shape in {
        "age": ("int64", ()),
        "weight": ("float", ()),
        "zip": ("bytes", ()),
        "vector": ("float", (2,)),
        "extra": ("float", (2, 3)),
    }.items():
        assert shapes.get(name, expected_shape) == expected_shape
    if make is iterable_source:
        assert shapes["v"] == ("float", (2, 2))
    if make is tfrecord_source:
        assert shapes["v"] == ("int64", (3,))


def test_resharding_keeps_bytes_schema_and_label_names(tmp_path: Path, images: list[Path]) -> None:
    rows = iterable_source(tmp_path, images)
    write_shards(rows, str(tmp_path / "a"), policy=LayoutPolicy(num_workers=1))
    write_shards(str(tmp_path / "a"), str(tmp_path / "b"), policy=LayoutPolicy(num_workers=3))
    first, second = (read_manifest(str(tmp_path / name)) for name in "ab")
    assert first.features == second.features
    assert first.label_names == second.label_names
    assert first.splits[0].fingerprint == second.splits[0].fingerprint
    assert len(second.splits[0].shards) == 3


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "path,label\n", "has no rows"),
        ("a.csv", "path,label\nmissing.png,cat\n", "row 0: there is no image"),
        ("a.csv", "path,label\nx.png\n", "line 2: the row does not have the 2 columns"),
        ("a.csv", "path,label\nx.png,a,b\n", "line 2: the row does not have the 2 columns"),
        ("a.jsonl", '{"a": 1}\n{"a": \n', "line 2: not JSON"),
        ("a.jsonl", '{"a": 1}\n[1]\n', "line 2: each line must be an object"),
        ("a.jsonl", '{"a": 1}\n{"b": 1}\n', "column 'b' has 1 missing value of 2 (line 1)"),
        ("a.jsonl", '{"a": 1}\n{"a": "x"}\n', "line 2: 'a' is a string, in the rows before"),
        ("a.jsonl", '{"a": 1}\n{"a": null}\n', "column 'a' has 1 missing value of 2 (line 2)"),
        ("a.parquet", "no parquet", "is not a Parquet file"),
        ("a.npz", "no zip", "is not an .npz file"),
        ("a.npy", "no array", "cannot be used"),
        ("a.tfrecord", "not a record, but long enough to be one", "not a TFRecord file"),
        ("a.tfrecord", "short", "not a TFRecord file"),
        ("a.bin", "x", "is of an unknown kind"),
        ("a.py", "def f(): return 7\n", "is of type int"),
        ("a.py", "def f(): raise ValueError('mine')\n", "raises ValueError: mine"),
        ("a.py", "import no_such_thing\n", "No module named 'no_such_thing'"),
        ("a.py", "def g(): pass\n", "has no 'f'"),
        ("a.py", "def f(): yield 7\n", "yields int"),
    ],
)
def test_unusable_source_raises_user_error(
    name: str, text: str, words: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text)
    (tmp_path / "x.png").write_bytes(b"")
    spec = str(tmp_path / name) + (":f" if name.endswith(".py") else "")
    with pytest.raises(UserError, match=re.escape(words)):
        open_source(spec, tmp_path)


@pytest.mark.parametrize(
    "spec", ["nowhere", "no/such.csv", "no_such_module:f", "gone.py:f", "gone.npz", "tfds:nope"]
)
def test_missing_source_raises_user_error(spec: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=spec.split(":")[0].split(".")[0]):
        open_source(spec, tmp_path)


def test_arrays_named_by_split_are_its_splits(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    arrays: dict[str, Any] = {
        "x_train": np.zeros((6, 4, 4), np.uint8),
        "y_train": np.eye(6),
        "x_test": np.zeros((3, 4, 4), np.uint8),
        "y_test": np.arange(3),
    }
    np.savez(path, **arrays)
    source = open_source(str(path), tmp_path)
    assert source.splits == (OwnSplit("test", 3), OwnSplit("train", 6))  # type: ignore[attr-defined]
    # One-hot labels have become indices.
    assert [source.encoded(index).label for index in range(9)] == [*range(3), *range(6)]
    (tmp_path / "one").mkdir()
    one = open_source(f"{path}:train", tmp_path / "one")
    assert [one.encoded(index).label for index in range(6)] == list(range(6))
    kept = open_source(f"{path}:train", tmp_path / "one", SourceOptions(one_hot="never"))
    assert kept.encoded(0).label is None
    np.savez(path, **arrays, extra=np.zeros(2))
    with pytest.raises(UserError, match=r"FILE\.npz:train"):
        open_source(str(path), tmp_path / "one")


PAIRS = [(np.full((2, 3), i, np.float32), np.eye(4)[i % 4]) for i in range(8)]


@pytest.mark.parametrize(
    ("stream", "options", "labels"),
    [
        (PAIRS, {}, [0, 1, 2, 3] * 2),
        ([{"x": 1.0, "y": i} for i in range(3)], {}, [0, 1, 2]),
        # A batch of pairs, and a batch with one-hot labels.
        ([(np.zeros((4, 2)), np.array([3, 1, 0, 2]))], {}, [3, 1, 0, 2]),
        ([(np.zeros((2, 5)), np.eye(3)[[2, 0]])], {}, [2, 0]),
        # Shapes that allow both answers need an option.
        ([(np.zeros((2, 5)), np.array([0, 1]))], {}, None),
        ([(np.zeros((2, 5)), np.array([0, 1]))], {"batched": "yes"}, [0, 1]),
        ([(np.zeros((2, 5)), np.array([0, 1]))], {"batched": "no"}, [1]),
        ([(np.zeros(3), np.array([0.2, 0.8]))], {"one_hot": "always", "batched": "no"}, [1]),
    ],
)
def test_stream_batches_and_one_hot_labels(
    stream: Any, options: dict[str, Any], labels: list[int] | None, tmp_path: Path
) -> None:
    if labels is None:
        with pytest.raises(UserError, match="--batched=yes or --batched=no"):
            open_source(stream, tmp_path, SourceOptions(**options))
        return
    source = open_source(stream, tmp_path, SourceOptions(**options))
    count = source.stats.num_examples
    assert [source.encoded(index).label for index in range(count)] == labels


@pytest.mark.timeout(240)
@pytest.mark.slow
def test_tfds_can_read_and_be_read(tmp_path: Path, images: list[Path]) -> None:
    tfds = pytest.importorskip("tensorflow_datasets")
    import tensorflow as tf

    rows = iterable_source(tmp_path, images)
    dataset = tf.data.Dataset.from_tensor_slices(
        {name: [row[name] for row in rows] for name in ("image", "label", "v")}
    )
    write_shards(
        dataset.batch(5),
        str(tmp_path / "a"),
        policy=LayoutPolicy(num_workers=2),
        splits=parse_splits("train:0.75,validation:0.25"),
    )
    builder = tfds.builder_from_directory(tmp_path / "a")
    read = {}
    for example in builder.as_dataset(split="train+validation"):
        read[example["image"].numpy().tobytes()] = int(example["label"])
        assert example["v"].numpy().tolist() == [[1, 1], [1, 1]]
    expected = {
        tf.io.decode_png(row["image"]).numpy().tobytes(): CLASSES.index(row["label"])
        for row in rows
    }
    assert read == expected
    assert builder.info.features["label"].names == CLASSES
    # Reading it back through TFDS's metadata gives the same splits, or one of them.
    first = read_manifest(str(tmp_path / "a"))
    prints = {split.name: split.fingerprint for split in first.splits}
    for source, names in (("", ["train", "validation"]), (":validation", ["train"])):
        manifest = write_shards(
            f"tfds:{tmp_path / 'a'}{source}",
            str(tmp_path / f"b{source}"),
            policy=LayoutPolicy(num_workers=3),
        ).manifest
        assert manifest is not None
        assert manifest.features == first.features
        assert manifest.label_names == tuple(CLASSES)
        assert [split.name for split in manifest.splits] == names
        taken = [source[1:]] if source else names
        assert [split.fingerprint for split in manifest.splits] == [prints[n] for n in taken]
