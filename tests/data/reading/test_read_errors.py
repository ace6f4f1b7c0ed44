"""A failed read is raised with the sentence of its own pipeline."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import tensorflow as tf

from tenfold.data import (
    CacheOptions,
    JobError,
    ReadOptions,
    evaluation_dataset,
    explain_errors,
    training_dataset,
)
from tenfold.data.reading.read_errors import cause_of

BATCH = 8


@pytest.fixture
def bucket(make_id_shards: Callable[..., Path]) -> Iterator[Callable[[str], str]]:
    """Make a copy of 64 records in 4 shards in memory, under a name of its own."""
    shards = make_id_shards(64, num_shards=4, num_lanes=2)
    memory = fsspec.filesystem("memory")

    def make(name: str) -> str:
        for path in shards.iterdir():
            memory.pipe(f"/{name}/{path.name}", path.read_bytes())
        return f"memory://{name}"

    yield make
    memory.store.clear()


def remove(folder: str, number: int) -> str:
    """Remove a shard; return its path."""
    path = f"{folder}/train-{number:05}-of-00004.tfrecord"
    fsspec.filesystem("memory").rm(path)
    return path


def dataset_of(folder: str, cache: Path, **arguments: Any) -> tf.data.Dataset:
    options = ReadOptions(threads=2, cache=CacheOptions(folder=str(cache)))
    return training_dataset(folder, global_batch_size=BATCH, options=options, **arguments)


def test_each_of_two_pipelines_gives_its_own_cause(
    bucket: Callable[[str], str], tmp_path: Path
) -> None:
    folders = [bucket("one"), bucket("two")]
    missing = [remove(folders[0], 1), remove(folders[1], 2)]
    iterators = [
        iter(dataset_of(folder, tmp_path / str(n), epochs=1)) for n, folder in enumerate(folders)
    ]
    errors: list[tf.errors.OpError] = []
    for iterator in iterators:
        with pytest.raises(tf.errors.OpError) as caught:
            list(iterator)
        errors.append(caught.value)
    for error, path in zip(errors, missing, strict=True):  # both have failed by now
        with pytest.raises(JobError, match=f"^{path} is missing: "), explain_errors():
            raise error


def test_graph_functions_and_evaluation_give_the_cause(
    bucket: Callable[[str], str], tmp_path: Path
) -> None:
    folder = bucket("one")
    path = remove(folder, 0)

    @tf.function
    def read(iterator: Any) -> None:
        for _ in range(8):
            next(iterator)

    iterator = iter(dataset_of(folder, tmp_path))
    with pytest.raises(JobError, match=f"^{path} is missing"), explain_errors():
        read(iterator)
    options = ReadOptions(cache=CacheOptions(folder=str(tmp_path)))
    evaluation = evaluation_dataset(
        folder, global_batch_size=BATCH, split="train", options=options
    )
    with pytest.raises(JobError, match=f"^{path} is missing"), explain_errors():
        list(evaluation)


def test_undecodable_image_is_named(make_shards: Callable[..., Path]) -> None:
    from tenfold.data import Feature

    features = (Feature("image", "image", (8, 8, 3)), Feature("label", "int64", ()))
    examples = [{"image": b"\xff\xd8\xff no image", "label": 0}] * 8
    shards = str(make_shards(examples, num_shards=1, num_lanes=1, features=features))
    options = ReadOptions(decoder="turbo")
    named = r"train-00000-of-00001\.tfrecord record \d at byte [\d,]+ cannot be decoded: "
    with pytest.raises(JobError, match=named) as caught, explain_errors():
        list(training_dataset(shards, global_batch_size=8, options=options, epochs=1))
    assert "Traceback" not in str(caught.value)


def test_other_errors_pass_unchanged() -> None:
    for error in (
        RuntimeError("JobError: not TensorFlow's\nTraceback (most recent call last)"),
        tf.errors.UnknownError(None, None, "ValueError: x\nTraceback (most recent call last)"),
        tf.errors.UnknownError(None, None, "no traceback in a JobError: message"),
    ):
        assert cause_of(error) is None
        with pytest.raises(type(error)) as caught, explain_errors():
            raise error
        assert caught.value is error


def test_cause_keeps_lines_of_its_message() -> None:
    text = "{{node PyFunc}} JobError: first\nsecond\nTraceback (most recent call last):\n  File"
    cause = cause_of(tf.errors.UnknownError(None, None, text))
    assert isinstance(cause, JobError)
    assert str(cause) == "first\nsecond"
