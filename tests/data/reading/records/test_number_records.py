"""Records of numbers are read as TensorFlow parses them, and damage is named."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tenfold.data.format.example import encode_example, encode_lists, feature_entry, field, to_list
from tenfold.data.format.manifest import Feature, ShardInfo
from tenfold.data.reading import batches as batches_module
from tenfold.data.reading.batches import evaluation_batches, open_reader, training_batches
from tenfold.data.reading.read_config import ReadConfig
from tenfold.data.reading.read_config import read_config as open_config
from tenfold.data.reading.read_options import Position, ReadOptions, WorkerPlace
from tenfold.data.reading.records.number_layout import DTYPES, NumberDecoder, fixed_shape
from tenfold.data.reading.records.number_records import NumberRecordReader, parse_numbers
from tenfold.data.reading.records.record_reader import RecordReader
from tenfold.data.reading.records.shard_index import UnreadableRecord

FEATURES = (
    Feature("floats", "float", (2, 3)),
    Feature("id", "int64"),
    Feature("label", "int64"),
    Feature("pair", "int64", (2,)),
)
INT64 = st.one_of(st.integers(0, 200), st.integers(-(2**63), 2**63 - 1))


def example_of(number: int) -> dict[str, Any]:
    return {
        "floats": np.arange(6, dtype=np.float32).reshape(2, 3) + number,
        "id": number,
        "label": number % 300,
        "pair": [-number, number * 1000],
    }


def reversed_example(number: int) -> bytes:
    """Return an Example as other writers make it: its features in another order."""
    lists = {name: to_list(name, value)[:2] for name, value in example_of(number).items()}
    entries = [feature_entry(name, *lists[name]) for name in sorted(lists, reverse=True)]
    return field(1, b"".join(entries))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(INT64, INT64, st.floats(width=32), st.booleans()), min_size=1, max_size=40)
)
def test_decoder_agrees_with_tensorflow_or_leaves_the_example(rows):
    features = [Feature("a", "int64"), Feature("b", "float", (2,)), Feature("c", "int64", (2,))]
    payloads = []
    for number, other, value, with_more in rows:
        values = {"a": number, "b": [value, 1.0], "c": [other, number]}
        payloads.append(encode_example(values | ({"more": b"x"} if with_more else {})))
    lengths = np.array([len(payload) for payload in payloads])
    out = {f.name: np.zeros(fixed_shape(f, len(rows)), DTYPES[f.kind]) for f in features}
    data = np.frombuffer(b"".join(payloads), np.uint8)

    left = NumberDecoder(features).decode(data, np.cumsum(lengths) - lengths, lengths, out)

    done = np.setdiff1d(np.arange(len(rows)), left)
    assert len(done) or len(rows) > 8  # of a few Examples each gets a layout of its own
    for name, column in parse_numbers(payloads, features).items():
        np.testing.assert_array_equal(out[name][done], column[done])


@pytest.mark.parametrize(
    "example",
    [
        encode_example({"id": 1.5}),
        encode_example({"id": [1, 2]}),
        encode_example({"other": 1}),
        encode_lists({"id": ("int64", b"\x08\x05")}),  # not packed
        field(1, 2 * feature_entry("id", "int64", b"\x0a\x01\x05")),  # twice
        b"\x0a\xff",
        b"",
    ],
)
def test_decoder_leaves_examples_of_another_form(example: bytes) -> None:
    out = {"id": np.zeros(1, np.int64)}
    data, length = np.frombuffer(example, np.uint8), np.array([len(example)])
    left = NumberDecoder([Feature("id", "int64")]).decode(data, np.array([0]), length, out)
    assert left.tolist() == [0]


@pytest.fixture
def shards(make_shards: Callable[..., Path]) -> Path:
    examples = [example_of(number) for number in range(331)]
    return make_shards(examples, num_shards=16, num_lanes=8, features=FEATURES)


def read_config(shards: Path, place: WorkerPlace, buffer_bytes: int = 10**6) -> ReadConfig:
    options = ReadOptions(seed=5, threads=2, shuffle_buffer_bytes=buffer_bytes)
    return open_config(
        str(shards), split="train", global_batch_size=24, place=place, options=options
    )


@pytest.fixture
def by_tensorflow(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """Read all batches of a pipeline by TensorFlow's ops."""

    def raw(
        config: ReadConfig, shards: Sequence[ShardInfo], *, plan: Iterator[str]
    ) -> RecordReader:
        return open_reader(config, shards, plan=plan, by_id=False)

    def read(pipeline: Callable[..., tf.data.Dataset], *args: Any, **kwargs: Any) -> list[Any]:
        with monkeypatch.context() as patch:
            patch.setattr(batches_module, "open_reader", raw)
            return list(pipeline(*args, **kwargs))

    return read


def assert_equal(found: Sequence[Any], expected: Sequence[Any]) -> None:
    assert len(found) == len(expected) > 0
    for batch, other in zip(found, expected, strict=True):
        pair = (part._replace(decode_s=0) for part in (batch, other))
        tf.nest.map_structure(np.testing.assert_array_equal, *pair)


@pytest.mark.parametrize(
    ("place", "buffer_bytes"),
    [
        (WorkerPlace(0, 1), 10**6),
        (WorkerPlace(1, 2, replicas=3), 9_000),  # half of the values fit into memory
        (WorkerPlace(0, 1, replicas=2), 0),
    ],
)
def test_numbers_are_read_as_by_tensorflow(
    shards: Path, by_tensorflow: Callable[..., list[Any]], place: WorkerPlace, buffer_bytes: int
) -> None:
    config = read_config(shards, place, buffer_bytes)
    reader = open_reader(config, config.shards.shards, plan=iter(()))
    assert isinstance(reader, NumberRecordReader)
    for start in (Position(0, 0), Position(1, 11)):
        arguments: dict[str, Any] = {"start": start, "epochs": 3, "tail": True}
        found = list(training_batches(config, **arguments))
        assert_equal(found, by_tensorflow(training_batches, config, **arguments))
    assert_equal(list(evaluation_batches(config)), by_tensorflow(evaluation_batches, config))


def test_examples_of_other_writers_are_read(
    shards: Path, by_tensorflow: Callable[..., list[Any]], rewrite: Callable[..., None]
) -> None:
    rewrite(shards, lambda index: reversed_example(index * 16))
    config = read_config(shards, WorkerPlace(0, 1))
    expected = by_tensorflow(training_batches, config, epochs=1)
    assert_equal(list(training_batches(config, epochs=1)), expected)


@pytest.fixture
def rewrite() -> Callable[..., None]:
    """Replace the payloads of the first shard by others of the same length."""

    def replace(folder: Path, payload: Callable[[int], bytes]) -> None:
        from tenfold.data.format.tfrecord import frame

        path = min(folder.glob("*.tfrecord"))
        data = b"".join(frame(payload(index)) for index in range(21))
        assert len(data) == path.stat().st_size
        path.write_bytes(data)

    return replace


@pytest.mark.parametrize("buffer_bytes", [10**6, 0])
@pytest.mark.parametrize(
    ("position", "problem"),
    [
        (30, r"record 0 at byte 0: the checksum of its .* bytes does not match"),
        (2, r"record 0 at byte 0: the checksum of the length does not match"),
    ],
)
def test_damaged_numbers_are_named(
    shards: Path, buffer_bytes: int, position: int, problem: str
) -> None:
    path = min(shards.glob("*.tfrecord"))
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)
    config = read_config(shards, WorkerPlace(0, 1), buffer_bytes)
    with pytest.raises((tf.errors.InvalidArgumentError, UnreadableRecord), match=problem):
        list(training_batches(config, epochs=1, tail=True))


def test_shard_of_another_size_is_named(shards: Path) -> None:
    path = min(shards.glob("*.tfrecord"))
    path.write_bytes(path.read_bytes()[:-1])
    config = read_config(shards, WorkerPlace(0, 1))
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"bytes, the manifest says"):
        list(training_batches(config, epochs=1))
