"""A failed read is raised with the sentence of its own pipeline."""

from collections.abc import Callable, Iterator
from dataclasses import replace
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
from tenfold.data.format.example import encode_example
from tenfold.data.format.manifest import Feature, manifest_from_json, manifest_to_json
from tenfold.data.format.tfrecord import crc32c, fingerprint64, frame
from tenfold.data.integrity.salvage import scan_records
from tenfold.data.reading.locating.read_errors import cause_of

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


IMAGE_FEATURES = (
    Feature("image", "image", (8, 8, 3)),
    Feature("label", "int64", ()),
)


def damaged_frame(payload: bytes, place: int) -> bytes:
    framed = bytearray(frame(payload))
    framed[place] ^= 0x40
    return bytes(framed)


# What happens to one framed record of a shard.
DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "length": lambda payload: damaged_frame(payload, 1),
    "header checksum": lambda payload: damaged_frame(payload, 9),
    "payload": lambda payload: damaged_frame(payload, 20),
    "footer": lambda payload: damaged_frame(payload, -1),
    "no Example": lambda payload: frame(b"\x0a\xff\xfe" + payload[3:]),
    "no label": lambda payload: frame(encode_example({"image": b"\xff"})),
    "no image": lambda payload: frame(payload.replace(b"\x89PNG", b"\xff\xfeNG")),
}


def restate(folder: Path, number: int, data: bytes) -> None:
    """Let the manifest state the contents `data` of a shard."""
    path = folder / "manifest.json"
    manifest = manifest_from_json(path.read_text())
    (split,) = manifest.splits
    payloads = [data[begin + 12 : end - 4] for begin, end in scan_records(data)[0]]
    shards = list(split.shards)
    shards[number] = replace(
        shards[number],
        bytes=len(data),
        crc32c=crc32c(data),
        fingerprint=sum(map(fingerprint64, payloads)) % 2**64,
    )
    splits = (replace(split, shards=tuple(shards)),)
    path.write_text(manifest_to_json(replace(manifest, splits=splits)))


@pytest.mark.timeout(180)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize("decoder", ["tf", "turbo"])
def test_every_damage_names_shard_record_and_offset(
    make_shards: Callable[..., Path], make_image: Callable[..., bytes], tmp_path: Path,
    decoder: str, remote: bool, training: bool,
) -> None:  # fmt: skip
    image = make_image(form="PNG", mode="RGB", height=8, width=8)
    examples = [{"image": image, "label": index} for index in range(16)]
    memory = fsspec.filesystem("memory")
    for kind, spoil in DAMAGE.items():
        folder = make_shards(
            examples, num_shards=2, num_lanes=1, features=IMAGE_FEATURES, name=kind
        )
        path = folder / "train-00001-of-00002.tfrecord"
        data = path.read_bytes()
        begin, end = scan_records(data)[0][3]
        spoiled = data[:begin] + spoil(data[begin + 12 : end - 4]) + data[end:]
        path.write_bytes(spoiled)
        if kind.startswith("no "):
            restate(folder, 1, spoiled)
        place = str(folder)
        if remote:
            place = f"memory://{kind}"
            for file in folder.iterdir():
                memory.pipe(f"/{kind}/{file.name}", file.read_bytes())
        options = ReadOptions(
            decoder=decoder, threads=2, cache=CacheOptions(folder=str(tmp_path / f"{kind} cache"))
        )
        read = training_dataset if training else evaluation_dataset
        arguments: dict[str, Any] = {"epochs": 1} if training else {}
        dataset = read(place, split="train", global_batch_size=4, options=options, **arguments)
        named = rf"{kind}/train-00001-of-00002\.tfrecord record 3 at byte {begin:,}"
        with pytest.raises(JobError, match=named), explain_errors():
            list(dataset)
    memory.store.clear()


def test_error_of_a_program_is_not_searched_for(make_id_shards: Callable[..., Path]) -> None:
    folder = make_id_shards(64, num_shards=4, num_lanes=2)
    path = next(iter(sorted(folder.glob("*.tfrecord"))))
    dataset = training_dataset(str(folder), global_batch_size=BATCH, epochs=1)
    path.write_bytes(b"damaged" + path.read_bytes()[7:])
    own = tf.errors.InvalidArgumentError(None, None, "Incompatible shapes")
    with pytest.raises(tf.errors.InvalidArgumentError, match="Incompatible"), explain_errors():
        raise own
    del dataset
