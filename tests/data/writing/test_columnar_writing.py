"""Shards written from columns equal those written row by row."""

import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenfold.data.errors import JobError
from tenfold.data.format.columns import Columns, bytes_column, number_column
from tenfold.data.format.manifest import Manifest
from tenfold.data.planning.layout import LayoutPolicy
from tenfold.data.sources.arrays import ArraySource, scan_arrays
from tenfold.data.sources.base import SourceOptions
from tenfold.data.writing import shard_writer
from tenfold.data.writing.write_shards import WriteOptions, write_shards

POLICY = LayoutPolicy(num_workers=2, shards_per_worker=2, min_shard_bytes=1)

ROWS = 23
ARRAYS = {
    "floats": np.linspace(-1, 1, ROWS * 6, dtype=np.float64).reshape(ROWS, 2, 3),
    "halves": np.arange(ROWS, dtype=np.float16),
    "int": np.arange(ROWS) ** 9 - 40,
    "bools": np.arange(ROWS) % 2 == 0,
    "wide": np.arange(ROWS * 5, dtype=np.uint32).reshape(ROWS, 5) ** 4,
    "text": np.array([f"text {'ü' * (number % 5)}" for number in range(ROWS)]),
    "bytes": np.array([b"\xff\xd8" + b"b" * (number % 3) for number in range(ROWS)]),
    "empty": np.zeros((ROWS, 0), np.float32),
    "texts": np.array([[str(number), "x"] for number in range(ROWS)]),
    "image": np.arange(ROWS * 12, dtype=np.uint8).reshape(ROWS, 2, 2, 3),
}
LABELS = {
    "names": np.array([["cat", "dog", "emu"][number % 3] for number in range(ROWS)]),
    "one_hot": np.eye(4, dtype=np.float32)[np.arange(ROWS) % 4],
    "numbers": np.arange(ROWS) % 5,
    "large": (np.arange(ROWS) % 5) * 100,
}


def write(folder: Path, **options: Any) -> tuple[Manifest | None, dict[str, bytes]]:
    source = str(folder / "arrays.npz")
    output = folder / f"shards-{len(list(folder.iterdir()))}"
    settings = WriteOptions(policy=POLICY, processes=1, **options)
    result = write_shards(source, str(output), options=settings)
    return result.manifest, {p.name: p.read_bytes() for p in output.glob("*.tfrecord")}


@settings(max_examples=15, deadline=None)
@given(
    names=st.sets(st.sampled_from(sorted(ARRAYS)), min_size=1),
    label=st.sampled_from(["", *LABELS]),
    seed=st.integers(0, 99),
    block=st.integers(1, ROWS),
    validation=st.sampled_from([0.0, 0.3]),
)
def test_shards_of_columns_equal_shards_of_rows(names, label, seed, block, validation):
    arrays = {name: ARRAYS[name] for name in sorted(names)}
    if label:
        arrays["label"] = LABELS[label]
    splits = {"train": 1 - validation, "validation": validation} if validation else {"train": 1.0}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        np.savez(folder / "arrays.npz", **arrays)
        with mock.patch.object(shard_writer, "MAX_BLOCK_RECORDS", block):
            columnar = write(folder, shuffle_seed=seed, splits=splits)
        with mock.patch.object(ArraySource, "columns", return_value=None):
            by_row = write(folder, shuffle_seed=seed, splits=splits)
        assert columnar == by_row


class Patchy(ArraySource):
    """Columns in which every tenth record is broken."""

    def columns(self, indices: np.ndarray) -> Columns:
        texts = [f"text {index}" for index in indices.tolist()]
        broken = {
            row: "it is cut" for row, index in enumerate(indices.tolist()) if index % 10 == 0
        }
        columns = {"text": bytes_column(texts), "number": number_column(indices)}
        return Columns(len(indices), columns, broken)


@pytest.fixture
def patchy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    np.savez(tmp_path / "arrays.npz", number=np.arange(95))

    def scan(spec: str, path: str, scratch: Path, options: SourceOptions) -> Patchy:
        source = scan_arrays(spec, path, scratch, options)
        source.__class__ = Patchy
        return source  # type: ignore[return-value]

    monkeypatch.setattr("tenfold.data.sources.arrays.scan_arrays", scan)
    return str(tmp_path / "arrays.npz")


def test_broken_records_of_columns_are_left_out_and_named(patchy, tmp_path):
    options = WriteOptions(policy=POLICY, processes=1, max_bad_records=10)
    manifest = write_shards(patchy, str(tmp_path / "out"), options=options).manifest
    assert manifest is not None
    assert manifest.split("train").num_records == 85
    quarantined = (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()
    assert len(quarantined) == 10
    assert all("row " in line and "it is cut" in line for line in quarantined)


def test_broken_record_of_columns_fails_a_write_by_default(patchy, tmp_path):
    with pytest.raises(JobError, match=r"row \d+: it is cut; --on_bad_record=skip"):
        write_shards(patchy, str(tmp_path / "out"), options=WriteOptions(policy=POLICY))
