"""Fixtures: shards of a few records."""

import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tenfold.data.format.example import Features, encode_example
from tenfold.data.format.manifest import (
    MANIFEST_NAME,
    Feature,
    Manifest,
    ShardInfo,
    Split,
    manifest_to_json,
    shard_name,
)
from tenfold.data.format.tfrecord import crc32c, fingerprint64, frame

ID_FEATURES = (Feature("id", "int64"), Feature("label", "int64"))
MakeShards = Callable[..., Path]


@pytest.fixture
def make_shards(tmp_path: Path, write_shards: MakeShards) -> MakeShards:
    """Write examples, dealt in turn, as shards of the split ``train`` with a manifest."""

    def make(examples: Sequence[Features], *, name: str = "shards", **options: Any) -> Path:
        return write_shards(tmp_path / name, examples, **options)

    return make


@pytest.fixture(scope="session")
def write_shards() -> MakeShards:
    """Return `make_shards` for fixtures that several tests share: it takes the folder."""
    return _write_shards


def _write_shards(
    folder: Path,
    examples: Sequence[Features],
    *,
    num_shards: int,
    num_lanes: int,
    features: Sequence[Feature] = ID_FEATURES,
    label_counts: tuple[int, ...] = (),
    label_names: tuple[str, ...] = (),
) -> Path:
    folder.mkdir()
    payloads = [encode_example(example) for example in examples]
    shards = tuple(
        _write(folder / shard_name("train", index, num_shards), payloads[index::num_shards])
        for index in range(num_shards)
    )
    split = Split("train", shards, label_counts)
    manifest = Manifest(
        num_lanes, (num_lanes,), tuple(features), (split,), label_names=label_names
    )
    (folder / MANIFEST_NAME).write_text(manifest_to_json(manifest))
    return folder


@pytest.fixture
def make_id_shards(make_shards: MakeShards) -> MakeShards:
    """Write `count` examples of a number and a label."""

    def make(count: int, *, num_shards: int, num_lanes: int, name: str = "shards") -> Path:
        examples = [{"id": number, "label": number % 7} for number in range(count)]
        return make_shards(examples, num_shards=num_shards, num_lanes=num_lanes, name=name)

    return make


def _write(path: Path, payloads: Sequence[bytes]) -> ShardInfo:
    data = b"".join(frame(payload) for payload in payloads)
    path.write_bytes(data)
    fingerprint = sum(fingerprint64(payload) for payload in payloads) % 2**64
    return ShardInfo(path.name, len(payloads), len(data), crc32c(data), fingerprint)


@pytest.fixture
def make_small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mount a file system of so many bytes; skip the test where that is not allowed."""
    mounted = []

    def make(num_bytes: int) -> Path:
        folder = tmp_path / f"disk-{num_bytes}"
        folder.mkdir(mode=0o700)
        command = [
            "mount",
            "-t",
            "tmpfs",
            "-o",
            f"size={num_bytes},mode=0700",
            "tmpfs",
            str(folder),
        ]
        if (
            shutil.which("mount") is None
            or subprocess.run(command, capture_output=True).returncode
        ):
            pytest.skip("a small disk needs the right to mount a tmpfs")
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        subprocess.run(["umount", "-l", folder], check=True)
