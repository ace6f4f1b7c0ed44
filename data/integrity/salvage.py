"""Keep the readable records of damaged shards.

A record with a wrong checksum is skipped, and the rest of its shard kept. If the length of a
record is damaged too, the next record is found by its own two checksums. A record that training
cannot parse or decode counts as damaged if the caller gives a check. The readable records of
each damaged shard are written to the run directory, with a manifest that counts them. The result
is a data set like any other: receipts over it are exact again.
"""

import json
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Final

from tenfold.data.errors import JobError, UserError
from tenfold.data.format.manifest import (
    MANIFEST_NAME,
    Manifest,
    ShardInfo,
    manifest_from_json,
    manifest_to_json,
)
from tenfold.data.format.tfrecord import (
    FOOTER_BYTES,
    HEADER_BYTES,
    RecordError,
    bytes_reader,
    crc32c,
    fingerprint64,
    read_frame,
    read_frames,
)
from tenfold.data.runtime.process_pool import run_pool
from tenfold.data.storage.folder import Folder
from tenfold.data.storage.open_folder import open_folder
from tenfold.data.units import plural

# Returns the reason why training cannot read a payload; "" if it can. Picklable.
Check = Callable[[bytes], str]

# Written last: a folder with this file is complete.
BAD_RECORDS_NAME: Final = "bad_records.json"
_REMEDY: Final = "remove the shard and run the same 'tenfold write' again"


@dataclass(frozen=True)
class DamagedRecord:
    """A record that cannot be read: its shard, index and offset in bytes there, and the reason.

    The names of the fields are keys of bad_records.json.
    """

    shard: str
    index: int
    offset: int
    problem: str

    def __str__(self) -> str:
        return f"{self.shard} record {self.index} at byte {self.offset:,}: {self.problem}"


@dataclass(frozen=True)
class Salvage:
    """A data set without its damaged records.

    Attributes:
      manifest: Counts the remaining records.
      moved: Paths of the rewritten shards by name; all other shards are where they were.
      bad_records: The records that were dropped.
    """

    manifest: Manifest
    moved: dict[str, str] = field(default_factory=dict)
    bad_records: tuple[DamagedRecord, ...] = ()


def scan_records(data: bytes) -> tuple[list[tuple[int, int]], list[RecordError]]:
    """Return the ranges (begin, end) of a shard's sound records, and its damaged records."""
    sound: list[tuple[int, int]] = []
    damaged: list[RecordError] = []
    read, offset = bytes_reader(data), 0
    while offset < len(data):
        index = len(sound) + len(damaged)
        try:
            for frame in read_frames(read, len(data), index=index, offset=offset):
                offset = frame.end
                if error := frame.damage():
                    damaged.append(error)
                else:
                    sound.append((frame.offset, frame.end))
        except RecordError as error:
            damaged.append(error)
            offset = _next_sound_record(data, offset + 1)
    return sound, damaged


def _next_sound_record(data: bytes, offset: int) -> int:
    """Return the offset of the first sound record from `offset` on, or the end of `data`.

    Both checksums of a record must match, so a payload that contains a header is no match. Only
    positions followed by four zero bytes are tried: lengths are below 2**32, so the upper half
    of the 64-bit length is zero.
    """
    read = bytes_reader(data)
    while (zeros := data.find(bytes(4), offset + 4)) >= 0:
        offset = zeros - 4
        try:
            read_frame(read, len(data), offset=offset).check()
        except RecordError:
            offset += 1
        else:
            return offset
    return len(data)


def check_sizes(folder_path: str, shards: Sequence[ShardInfo]) -> None:
    """Check that `shards` exist with the sizes that the manifest states.

    Raises:
      JobError: a shard is missing or has another size; the message names the first.
    """
    sizes = open_folder(folder_path).sizes()
    for shard in shards:
        size = sizes.get(shard.name)
        if size is None:
            raise JobError(f"{folder_path}/{shard.name} is missing: {_REMEDY}")
        if size != shard.bytes:
            raise JobError(
                f"{folder_path}/{shard.name} has {size:,} bytes, the manifest says "
                f"{shard.bytes:,}: {_REMEDY}, or skip damaged records (--on_bad_record=skip)"
            )


def find_damaged_record(folder_path: str, shards: Sequence[ShardInfo]) -> DamagedRecord | None:
    """Return the first damaged record of `shards`, or None if all are as they were written.

    Raises:
      JobError: a shard is missing, or differs from the manifest without a damaged record.
    """
    folder = open_folder(folder_path)
    for shard in shards:
        _, _, damaged = _examine(folder, shard)
        if damaged:
            return damaged[0]
    return None


def find_record(
    folder_path: str, shards: Sequence[ShardInfo], fingerprint: int
) -> tuple[str, int, int] | None:
    """Return shard, index and offset of the first sound record with this fingerprint, or None."""
    folder = open_folder(folder_path)
    for shard in shards:
        data = folder.read(shard.name) or b""
        for index, (begin, end) in enumerate(scan_records(data)[0]):
            if fingerprint64(data[begin + HEADER_BYTES : end - FOOTER_BYTES]) == fingerprint:
                return shard.name, index, begin
    return None


def _examine(
    folder: Folder, shard: ShardInfo
) -> tuple[bytes, list[tuple[int, int]] | None, list[DamagedRecord]]:
    """Read a shard and return its bytes, its sound ranges as `scan_records`, and its damage.

    The ranges are None if the whole shard is as the manifest states.
    """
    data = folder.read(shard.name)
    if data is None:
        raise JobError(f"{folder.path}/{shard.name} is missing: {_REMEDY}")
    if len(data) == shard.bytes and crc32c(data) == shard.crc32c:
        return data, None, []
    sound, errors = scan_records(data)
    damaged = [DamagedRecord(shard.name, e.index, e.offset, e.problem) for e in errors]
    for index in range(len(sound) + len(damaged), shard.records):
        damaged.append(DamagedRecord(shard.name, index, len(data), "the file ends before it"))
    if not damaged:
        raise JobError(
            f"{folder.path}/{shard.name}: its records are sound, but not those of the manifest: "
            f"{_REMEDY}"
        )
    return data, sound, damaged


def salvage_shards(
    path: str,
    into: str,
    *,
    max_bad_records: int,
    check: Check | None = None,
    processes: int = 1,
) -> Salvage:
    """Read every shard at `path`, and write the sound records of damaged shards to `into`.

    The result of an earlier call is used unchanged, without reading the shards: a run's order of
    records depends on it, so damage that appears later must not change it.

    Args:
      path: The folder of shards.
      into: The folder for the rewritten shards, within the run directory.
      max_bad_records: Largest acceptable number of damaged records.
      check: Finds records that are as they were written, but that training cannot read; None
        looks at checksums only.
      processes: Processes that read. With `check`, none of them is this process, which then
        imports nothing that the check needs.

    Raises:
      JobError: more than `max_bad_records` are damaged, or a shard is missing.
      UserError: `into` belongs to another data set.
    """
    source, target = open_folder(path), open_folder(into)
    text = (source.read(MANIFEST_NAME) or b"").decode()
    manifest = manifest_from_json(text, where=f"{source.path}/{MANIFEST_NAME}")
    earlier = target.read(BAD_RECORDS_NAME)
    if earlier is not None:
        if json.loads(earlier)["manifest_crc32c"] != crc32c(text.encode()):
            raise UserError(f"{into} was made from other shards: give a new --run_dir")
        return load_salvage(into)
    shards = [shard for split in manifest.splits for shard in split.shards]
    work = partial(_salvage_shard, source, target, check)
    saved: dict[str, tuple[ShardInfo, list[DamagedRecord]]] = {}
    with closing(run_pool(work, shards, processes=processes, inline=check is None)) as results:
        for shard, result in results:
            saved[shard.name] = result
            _check_number([bad for _, found in saved.values() for bad in found], max_bad_records)
    damaged = [bad for shard in shards for bad in saved[shard.name][1]]
    splits = [
        replace(split, shards=tuple(saved[shard.name][0] for shard in split.shards))
        for split in manifest.splits
    ]
    target.write(MANIFEST_NAME, manifest_to_json(replace(manifest, splits=tuple(splits))).encode())
    document = {
        "manifest_crc32c": crc32c(text.encode()),
        "bad_records": [asdict(record) for record in damaged],
    }
    target.write(BAD_RECORDS_NAME, json.dumps(document, indent=1).encode())
    return load_salvage(into)


def _check_number(damaged: Sequence[DamagedRecord], max_bad_records: int) -> None:
    if len(damaged) > max_bad_records:
        raise JobError(
            f"at least {plural(len(damaged), 'damaged record')}, more than "
            f"--max_bad_records={max_bad_records} allows; the last: {damaged[-1]}"
        )


def _salvage_shard(
    source: Folder,
    target: Folder,
    check: Check | None,
    shard: ShardInfo,
    note: Callable[[None], None],
) -> tuple[ShardInfo, list[DamagedRecord]]:
    """Rewrite one shard if it is damaged; return its new manifest entry and its damaged records.

    Runs in the processes of the pool.
    """
    del note
    data, sound, damaged = _examine(source, shard)
    if check is not None:
        sound, unreadable = _readable(data, shard.name, check)
        damaged = sorted([*damaged, *unreadable], key=lambda record: record.index)
    if sound is None or not damaged:
        return shard, []
    kept = b"".join(data[begin:end] for begin, end in sound)
    prints = (
        fingerprint64(data[begin + HEADER_BYTES : end - FOOTER_BYTES]) for begin, end in sound
    )
    target.write(shard.name, kept)
    info = ShardInfo(shard.name, len(sound), len(kept), crc32c(kept), sum(prints) % 2**64)
    return info, damaged


def _readable(
    data: bytes, name: str, check: Check
) -> tuple[list[tuple[int, int]], list[DamagedRecord]]:
    """Return the ranges of the sound records that pass `check`, and the records that do not."""
    ranges, errors = scan_records(data)
    damaged = {error.index for error in errors}
    indices = (index for index in range(len(ranges) + len(errors)) if index not in damaged)
    kept, unreadable = [], []
    for index, (begin, end) in zip(indices, ranges, strict=True):
        if problem := check(data[begin + HEADER_BYTES : end - FOOTER_BYTES]):
            unreadable.append(DamagedRecord(name, index, begin, problem))
        else:
            kept.append((begin, end))
    return kept, unreadable


def load_salvage(into: str) -> Salvage:
    """Return the result of `salvage_shards` that is stored in `into`.

    Raises:
      JobError: there is none, or it is incomplete.
    """
    folder = open_folder(into)
    manifest, records = folder.read(MANIFEST_NAME), folder.read(BAD_RECORDS_NAME)
    if manifest is None or records is None:
        raise JobError(f"there is no {into}/{BAD_RECORDS_NAME}: start the job again")
    damaged = tuple(DamagedRecord(**record) for record in json.loads(records)["bad_records"])
    return Salvage(
        manifest_from_json(
            manifest.decode(), where=f"{into}/{MANIFEST_NAME}", lost_records=len(damaged)
        ),
        {record.shard: f"{folder.path}/{record.shard}" for record in damaged},
        damaged,
    )
