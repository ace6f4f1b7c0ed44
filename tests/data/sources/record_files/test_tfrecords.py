"""TFRecord files: compressed ones, SequenceExamples, and labels that are no class indices."""

import gzip
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tenfold.data.errors import UserError
from tenfold.data.format.example import (
    decode_example,
    encode_example,
    feature_entry,
    field,
    to_list,
    walk_example,
)
from tenfold.data.format.example_view import feature_lists, find_feature, replace_feature
from tenfold.data.format.manifest import Feature
from tenfold.data.format.schema import describe_feature
from tenfold.data.format.tfrecord import frame, read_records
from tenfold.data.integrity.inspect_shards import reading_code
from tenfold.data.integrity.verify_shards import verify_shards
from tenfold.data.planning.layout import LayoutPolicy
from tenfold.data.reading.feeding.input_spec import input_spec
from tenfold.data.reading.records.record_check import parse_problem
from tenfold.data.sources.base import SourceOptions
from tenfold.data.sources.open_source import open_source
from tenfold.data.storage.read_manifest import read_manifest
from tenfold.data.writing.write_shards import WriteResult, write_shards

ONE = LayoutPolicy(num_workers=1)


def records(examples: list[dict[str, Any]]) -> bytes:
    return b"".join(frame(encode_example(example)) for example in examples)


EXAMPLES = [{"label": n % 2, "text": "long " * 50 + str(n)} for n in range(9)]


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("x.tfrecord.gz", gzip.compress),
        ("x.tfrecord", gzip.compress),
        ("x.tfrecord", zlib.compress),
        ("x.tfrecord", lambda data: zlib.compress(data, 9)),
        # Several streams one after the other, as `cat a.gz b.gz` makes them.
        ("x.tfrecord.gz", lambda data: b"".join(map(gzip.compress, (data[:99], data[99:], b"")))),
    ],
)
def test_compressed_files_give_the_same_records(
    name: str, pack: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(pack(records(EXAMPLES)))
    (tmp_path / "scratch").mkdir()
    source = open_source(str(tmp_path / name), tmp_path / "scratch")
    assert source.stats.num_examples == 9
    assert [source.encoded(i).payload for i in range(9)] == [encode_example(e) for e in EXAMPLES]
    assert source.name(0) == f"{tmp_path / name}: record at byte 0 when unpacked"


@pytest.mark.parametrize(
    "data",
    [
        gzip.compress(records(EXAMPLES))[:-9],
        gzip.compress(records(EXAMPLES))[:40] + b"garbage" * 9,
        zlib.compress(records(EXAMPLES))[:-1],
    ],
)
def test_damaged_compressed_file_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.tfrecord").write_bytes(data)
    with pytest.raises(UserError, match=r"x\.tfrecord': its compressed data is cut or damaged"):
        open_source(str(tmp_path / "x.tfrecord"), tmp_path)


def written(tmp_path: Path, data: bytes, **options: Any) -> tuple[WriteResult, list[bytes]]:
    (tmp_path / "x.tfrecord").write_bytes(data)
    source_options = SourceOptions(**options)
    output = tmp_path / "out"
    result = write_shards(
        str(tmp_path / "x.tfrecord"), output, policy=ONE, source_options=source_options
    )
    assert result.manifest is not None
    shard = result.manifest.splits[0].shards[0]
    with open(output / shard.name, "rb") as file:
        return result, [payload for _, payload in read_records(file, shard.bytes)]


@pytest.mark.parametrize(
    ("labels", "stored", "counts", "names", "note"),
    [
        ([5, 7, 100] * 3, [0, 1, 2] * 3, (3, 3, 3), ("5", "7", "100"), "are stored as 0, 1, 2"),
        ([1, 2, 3, 3], [0, 1, 2, 2], (1, 1, 2), ("1", "2", "3"), "are stored as 0, 1, 2"),
        ([-1, 1], [0, 1], (1, 1), ("-1", "1"), "are stored as 0, 1"),
        (["dog", "cat", "dog"], [1, 0, 1], (1, 2), ("cat", "dog"), ""),
        ([0, 2, 1], [0, 2, 1], (1, 1, 1), (), ""),
        # Regression targets and ids are no classes.
        ([0.0, 5.0, 100.0], [0.0, 5.0, 100.0], (), (), ""),
        (range(500, 530), range(500, 530), (), (), "are no classes and stay numbers"),
    ],
)
def test_labels_of_records_become_class_indices(
    labels: Any, stored: Any, counts: Any, names: Any, note: str, tmp_path: Path
) -> None:
    examples = [{"a": i, "label": label, "z": "x"} for i, label in enumerate(labels)]
    result, payloads = written(tmp_path, records(examples))
    found = {}
    for payload in payloads:
        values = decode_example(payload)
        assert list(values) == ["a", "label", "z"]
        found[values["a"][1][0]] = values["label"][1][0]
    assert [found[i] for i in range(len(examples))] == list(stored)
    manifest = result.manifest
    assert manifest is not None
    assert manifest.splits[0].label_counts == counts
    assert manifest.label_names == names
    assert (note in result.notes[0]) if note else not result.notes


@pytest.mark.parametrize(
    ("classes", "stored", "counts"),
    [
        (("x", "y", "z"), [0, 2], (1, 0, 1)),
        (("2", "1", "0"), [2, 0], (1, 0, 1)),
        ((), [0, 2], ()),
    ],
)
def test_given_classes_apply_to_records(
    classes: tuple[str, ...], stored: list[int], counts: Any, tmp_path: Path
) -> None:
    result, payloads = written(tmp_path, records([{"label": 0}, {"label": 2}]), classes=classes)
    assert sorted(decode_example(p)["label"][1][0] for p in payloads) == sorted(stored)
    assert result.manifest is not None
    assert result.manifest.splits[0].label_counts == counts
    assert result.manifest.label_names == classes


def sequence_example(context: dict[str, Any], sequences: dict[str, list[Any]]) -> bytes:
    lists = b""
    for name, steps in sequences.items():
        features = b"".join(
            field(1, feature_entry("", *to_list("", step)[:2])[-len_of(step) :]) for step in steps
        )
        lists += field(1, field(1, name.encode()) + field(2, features))
    return encode_example(context) + field(2, lists)


def len_of(step: Any) -> int:
    """Return the length of the message Feature of `step`, the end of its map entry."""
    kind, packed, _ = to_list("", step)
    return len(field({"bytes": 1, "float": 2, "int64": 3}[kind], packed))


SEQUENCES = [
    sequence_example({"label": n, "id": f"r{n}"}, {"frames": [[0.5, 1.5]] * (n + 1), "words": w})
    for n, w in enumerate(([], ["a"], ["b", "c"]))
]


def test_sequence_examples_are_told_and_kept_unchanged(tmp_path: Path) -> None:
    result, payloads = written(tmp_path, b"".join(map(frame, SEQUENCES)))
    assert sorted(payloads) == sorted(SEQUENCES)
    manifest = read_manifest(str(tmp_path / "out"))
    assert manifest == result.manifest
    assert manifest.features == (
        Feature("frames", "float", (None, 2), sequence=True),
        Feature("id", "bytes"),
        Feature("label", "int64"),
        Feature("words", "bytes", (None,), sequence=True),
    )
    assert manifest.splits[0].label_counts == (1, 1, 1)
    names = [feature.name for feature in input_spec(manifest).inputs]
    assert names == ["frames", "id", "words"]
    assert [parse_problem(payload, manifest.features) for payload in payloads] == [""] * 3


def test_sequence_examples_are_shown_verified_and_read(tmp_path: Path) -> None:
    written(tmp_path, b"".join(map(frame, SEQUENCES)))
    output = str(tmp_path / "out")
    manifest = read_manifest(output)
    assert verify_shards(output, manifest).problems == ()
    shown = [describe_feature(feature) for feature in manifest.features]
    assert shown[0] == "sequence of any number of float 2"
    assert shown[3] == "sequence of any number of bytes scalar"
    code = reading_code(output, manifest)
    scope: dict[str, Any] = {}
    exec(code, scope)
    found = {row["id"].numpy(): row["frames"].numpy().tolist() for row in scope["dataset"]}
    assert found == {f"r{n}".encode(): [[0.5, 1.5]] * (n + 1) for n in range(3)}


def test_sequence_examples_are_mapped_but_not_transformed(tmp_path: Path) -> None:
    data = [sequence_example({"label": n}, {"s": [[1]]}) for n in (5, 7)]
    _, payloads = written(tmp_path, b"".join(map(frame, data)))
    expected = [sequence_example({"label": n}, {"s": [[1]]}) for n in (0, 1)]
    assert sorted(payloads) == expected
    with pytest.raises(UserError, match="with the sequence 's', cannot be transformed yet"):
        open_source(str(tmp_path / "x.tfrecord"), tmp_path).features(0)


def test_one_feature_is_found_and_replaced() -> None:
    example = {"a": [1, 2], "label": 7, "z": b"x" * 300}
    payload = encode_example(example)
    assert find_feature(memoryview(payload), "label") == to_list("label", 7)[:2]
    assert find_feature(memoryview(payload), "b") is None
    entry = feature_entry("label", *to_list("label", 300)[:2])
    assert replace_feature(payload, "label", entry) == encode_example({**example, "label": 300})
    assert feature_lists(payload) == list(walk_example(payload))
    # The name may come after the feature, and the map in several messages.
    kind, packed, _ = to_list("label", 7)
    turned = field(1, field(2, field(3, packed)) + field(1, b"label"))
    odd = field(1, turned) + field(1, feature_entry("a", *to_list("a", 1)[:2]))
    assert find_feature(memoryview(odd), "label") == (kind, packed)
    assert feature_lists(odd) == list(walk_example(odd))
    assert decode_example(replace_feature(odd, "label", entry)) == {
        "a": ("int64", [1]),
        "label": ("int64", [300]),
    }
