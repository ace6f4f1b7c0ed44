"""Writing one shard: the inner loop of a write."""

import fcntl
import os
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from tenfold.data.errors import JobError
from tenfold.data.format.example_view import split_feature
from tenfold.data.format.manifest import ShardInfo
from tenfold.data.format.schema import Schema, SchemaError, SchemaObserver
from tenfold.data.format.tfrecord import extend_crc32c, fingerprint64, frame_footer, frame_header
from tenfold.data.planning.write_plan import ShardTask, WritePlan
from tenfold.data.runtime.scratch_folder import scratch_folder
from tenfold.data.sources.base import Encoded, Source, UnusableRecord
from tenfold.data.storage.folder import Conflict, Folder
from tenfold.data.storage.local_folder import create_exclusively, temporary_beside
from tenfold.data.storage.open_folder import open_folder
from tenfold.data.transforms.base import RecordSeed
from tenfold.data.transforms.chain import BATCH_RECORDS, Chain
from tenfold.data.writing.ledger import (
    FinishedShard,
    SkippedRecord,
    check_bad_records,
    record_fingerprints,
    record_finished,
    taken_over,
)
from tenfold.data.writing.statistics.shard_statistics import ShardStatistics

if TYPE_CHECKING:
    import numpy as np

    from tenfold.data.format.columns import Columns
    from tenfold.data.reading.records.record_check import ImageCheck

# Checksummed and written per block: small enough that the CPU cache still holds most of it.
BLOCK_BYTES: Final = 1 << 20
# Records of a block that is encoded as columns, at most.
MAX_BLOCK_RECORDS: Final = 1 << 14
Read = TypeVar("Read")
# Takes the records and bytes written since the last call.
Report = Callable[[int, int], None]


@dataclass(frozen=True)
class WriteJob:
    """The input of a writing process; picklable.

    Attributes:
      source: the scanned source.
      plan: the plan of the whole write.
      output: the path or URL of the output folder.
      chain: the transforms.
      max_bad_records: broken records to leave out; None fails on the first.
      keys: the digest of the write's keys.
      decode_images: decode each image once; an image that cannot be decoded is a broken record.
      versions: the versions of those shards that the folder held when the write began: they
        alone may be replaced.
    """

    source: Source
    plan: WritePlan
    output: str
    chain: Chain
    max_bad_records: int | None = None
    decode_images: bool = False
    keys: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)


def write_shard(job: WriteJob, task: ShardTask, report: Report) -> FinishedShard:
    """Write one shard into the output folder and note it in the ledger.

    Raises:
      JobError: a record is broken or too many are, the source has changed, another write has
        taken the folder over, or the storage refused.
    """
    folder = open_folder(job.output)
    split = job.plan.splits[task.split]
    statistics = ShardStatistics(split.expected_records, split.layout.num_shards)
    optional = getattr(job.source, "optional_features", ())
    compare = len(job.plan.splits) > 1
    sums = _ShardSums(task.name, report, statistics, optional, compare=compare)
    with _temporary(folder, task.name) as path:
        try:
            with open(path, "wb", buffering=0, opener=create_exclusively) as file:
                with suppress(OSError):  # marks the file as in use for `remove_temporaries`
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for block in sums.blocks(job, task):
                    _write_all(file.fileno(), block)
                if folder.scratch():  # a file that is uploaded need not be durable on this disk
                    os.fsync(file.fileno())
                replaces = job.versions.get(task.name, "")
                folder.publish(path, task.name, synced=True, replaces=replaces)
            finished = sums.finished()
            if sums.fingerprints:
                record_fingerprints(folder, task.name, sums.fingerprints)
            record_finished(folder, finished, job.keys)
        except Conflict:
            raise taken_over(folder) from None
        except FileNotFoundError:
            raise JobError(
                f"output '{folder.path}': another process removed the files of this write, as a "
                "second write into the same folder does: run it again once that has ended"
            ) from None
        except OSError as error:
            raise JobError(f"{folder.path}/{task.name} could not be written: {error}") from error
    return finished


@contextmanager
def _temporary(folder: Folder, name: str) -> Iterator[Path]:
    """Yield a local path for a file to be published as `name`; remove a file left there."""
    scratch = folder.scratch()
    with nullcontext(scratch) if scratch else scratch_folder() as base:
        path = temporary_beside(base / name)
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)


def _write_all(descriptor: int, block: bytes) -> None:
    """Write all of `block`: a single `os.write` may take less."""
    view = memoryview(block)
    while view:
        view = view[os.write(descriptor, view) :]


class _ShardSums:
    """Counts, checksums and schema of one shard, summed up while its records are written."""

    def __init__(
        self,
        name: str,
        report: Report,
        statistics: ShardStatistics,
        optional: Collection[str] = (),
        *,
        compare: bool,
    ) -> None:
        self._name = name
        self._statistics = statistics
        self._report = report
        self._compare = compare
        self._records = self._bytes = self._crc32c = self._fingerprint = 0
        self._observer = SchemaObserver(optional)
        self._label_counts: dict[int, int] = {}
        self._quarantined: list[SkippedRecord] = []
        self._left_out = 0
        # One number per record, kept only if there are splits to compare.
        self._fingerprints = array("Q")
        self._changes: Counter[str] = Counter()

    def blocks(self, job: WriteJob, task: ShardTask) -> Iterator[bytes]:
        """Yield the shard's bytes in blocks of about BLOCK_BYTES."""
        chain = job.chain.of_split(job.plan.splits[task.split].name)
        read_columns = getattr(job.source, "columns", None)
        if chain.steps:
            yield from self._row_blocks(job, _transformed(job, task, chain))
        elif read_columns is None or job.plan.splits[task.split].copies > 1:
            yield from self._row_blocks(job, _unchanged(job.source, job.plan.sources_of(task)))
        else:
            yield from self._column_blocks(job, job.plan.examples_of(task), read_columns)

    def _column_blocks(
        self,
        job: WriteJob,
        examples: "np.ndarray",
        read_columns: "Callable[[np.ndarray], Columns | None]",
    ) -> Iterator[bytes]:
        """Yield the blocks of `examples`, int64 [n], of a source that has columns."""
        from tenfold.data.writing.encode_columns import encode_columns  # imports numpy

        stats = job.source.stats
        record_bytes = max(1, stats.total_bytes // max(1, stats.num_examples))
        step = max(1, min(BLOCK_BYTES // record_bytes, MAX_BLOCK_RECORDS))
        for begin in range(0, len(examples), step):
            chosen = examples[begin : begin + step]
            columns = read_columns(chosen)
            if columns is None or (job.decode_images and columns.has_images):
                rows = ((example, 0) for example in chosen.tolist())
                yield from self._row_blocks(job, _unchanged(job.source, rows))
                continue
            block = encode_columns(columns)
            self._statistics.add_columns(columns, block.unusable)
            for row, reason in sorted(block.unusable.items()):
                self._quarantine(job, int(chosen[row]), reason)
            for row, schema in block.schemas:
                self._observe(job, int(chosen[row]), schema)
            self._fingerprint += block.fingerprint
            if self._compare:
                self._fingerprints.frombytes(block.fingerprints.tobytes())
            for label, count in block.label_counts.items():
                self._label_counts[label] = self._label_counts.get(label, 0) + count
            yield self._block([block.frames], block.records)

    def _row_blocks(
        self, job: WriteJob, rows: Iterator[tuple[int, Encoded | UnusableRecord | None]]
    ) -> Iterator[bytes]:
        parts: list[bytes] = []
        size = records = 0
        for encoded in self._good_records(job, rows):
            payload = encoded.payload
            parts += (frame_header(len(payload)), payload, frame_footer(payload))
            size += len(payload)
            records += 1
            fingerprint = fingerprint64(payload)
            self._fingerprint += fingerprint
            self._statistics.add_record(payload, encoded.schema, fingerprint)
            if self._compare:
                self._fingerprints.append(fingerprint)
            if encoded.changes:
                self._changes.update(encoded.changes)
            if encoded.label is not None:
                self._label_counts[encoded.label] = self._label_counts.get(encoded.label, 0) + 1
            if size >= BLOCK_BYTES:
                yield self._block(parts, records)
                parts, size, records = [], 0, 0
        yield self._block(parts, records)

    def _block(self, parts: list[bytes], records: int) -> bytes:
        block = b"".join(parts)
        self._crc32c = extend_crc32c(self._crc32c, block)
        self._bytes += len(block)
        self._records += records
        self._report(records, len(block))
        return block

    def _good_records(
        self, job: WriteJob, rows: Iterator[tuple[int, Encoded | UnusableRecord | None]]
    ) -> Iterator[Encoded]:
        for index, encoded in rows:
            if encoded is None:
                self._left_out += 1
                continue
            if job.decode_images and isinstance(encoded, Encoded):
                encoded = _decodable(encoded)
            if isinstance(encoded, UnusableRecord):
                self._quarantine(job, index, str(encoded))
                continue
            self._observe(job, index, encoded.schema)
            yield encoded

    def _observe(self, job: WriteJob, index: int, schema: Schema) -> None:
        try:
            self._observer.add(schema)
        except SchemaError as error:
            raise JobError(f"{job.source.name(index)}: {error}") from error

    def _quarantine(self, job: WriteJob, index: int, reason: str) -> None:
        name = job.source.name(index)
        if job.max_bad_records is None:
            raise JobError(f"{name}: {reason}; --on_bad_record=skip leaves such records out")
        self._quarantined.append(SkippedRecord(name, reason))
        check_bad_records(self._quarantined, job.max_bad_records)

    def finished(self) -> FinishedShard:
        """Return the sums; call after the last block."""
        self._statistics.flush()
        info = ShardInfo(
            name=self._name,
            records=self._records,
            bytes=self._bytes,
            crc32c=self._crc32c,
            fingerprint=self._fingerprint % 2**64,
        )
        return FinishedShard(
            info,
            self._observer.schema,
            self._label_counts,
            tuple(self._quarantined),
            self._statistics,
            left_out=self._left_out,
            changes=dict(self._changes),
        )

    @property
    def fingerprints(self) -> "array[int]":
        """The fingerprint of each record, if there are splits to compare."""
        return self._fingerprints


def _decodable(encoded: Encoded) -> Encoded | UnusableRecord:
    """Return the record, or the reason why one of its images cannot be decoded."""
    from tenfold.data.reading.records.record_check import channels_of

    for feature in encoded.schema:
        if feature.kind == "image":
            image, _ = split_feature(memoryview(encoded.payload), feature.name)
            problem = _image_check(channels_of(feature.shape)).problem(bytes(image))
            if problem:
                return UnusableRecord(f"it cannot be decoded: {problem}")
    return encoded


@cache
def _image_check(channels: int) -> "ImageCheck":
    """Return the decoder for images of `channels`, which a process keeps."""
    from tenfold.data.reading.records.record_check import ImageCheck

    return ImageCheck(channels)


def _unchanged(
    source: Source, positions: Iterator[tuple[int, int]]
) -> Iterator[tuple[int, Encoded | UnusableRecord]]:
    """Yield the records at (example, copy) as the source encodes them, with the index of each."""
    encode = source.encoded

    def read(position: tuple[int, int]) -> tuple[int, Encoded | UnusableRecord]:
        index = position[0]
        try:
            return index, encode(index)
        except UnusableRecord as error:
            return index, error

    return _read_in_order(read, positions, source)


def _transformed(
    job: WriteJob, task: ShardTask, chain: Chain
) -> Iterator[tuple[int, Encoded | UnusableRecord | None]]:
    """Yield a shard's records, transformed in batches, with the index of each.

    None stands for a record of the source that a transform has left out.
    """
    source, seed = job.source, job.plan.shuffle_seed

    def read(position: tuple[int, int]) -> tuple[RecordSeed, dict[str, Any] | UnusableRecord]:
        return RecordSeed(*position, seed), _features(source, position[0])

    records = _read_in_order(read, job.plan.sources_of(task), source)
    while batch := list(islice(records, BATCH_RECORDS)):
        seeds = [record_seed for record_seed, _ in batch]
        results = chain.apply([record for _, record in batch], seeds)
        for record_seed, made in zip(seeds, results, strict=True):
            if not made:
                yield record_seed.example, None
            yield from ((record_seed.example, encoded) for encoded in made)


def _read_in_order(
    read: Callable[[tuple[int, int]], Read], positions: Iterator[tuple[int, int]], source: Source
) -> Iterator[Read]:
    """Yield `read` of each position, in order; of a source behind a network several at once."""
    concurrent_reads = int(getattr(source, "concurrent_reads", 1))
    if concurrent_reads == 1:
        return map(read, positions)
    from tenfold.data.runtime.threads import prefetch_map

    return prefetch_map(read, positions, max_in_flight=concurrent_reads)


def _features(source: Source, index: int) -> dict[str, Any] | UnusableRecord:
    try:
        return dict(source.features(index))
    except UnusableRecord as error:
        return error
