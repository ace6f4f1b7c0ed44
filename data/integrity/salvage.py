"""What can still be read of damaged shards.

A record whose checksum fails is left out and the rest of its shard is kept: where the length
of a record is damaged too, the next one is found by its own two checksums. What is left of a
damaged shard is written beside the run, with a manifest that counts it: from then on it is a
data set like any other, and every sum over it is exact again.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Final

from tenfold.data.errors import JobError, UserError
from tenfold.data.format.manifest import (
    MANIFEST_NAME,
    Manifest,
    ShardInfo,
    Split,
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
from tenfold.data.storage.folder import Folder
from tenfold.data.storage.open_folder import open_folder
from tenfold.data.units import plural

# Written last into the folder of what was salvaged.
BAD_RECORDS_NAME: Final = "bad_records.json"
_REMEDY: Final = "remove the shard and run the same 'tenfold write' again"


@dataclass(frozen=True)
class DamagedRecord:
    """A record that cannot be read: its shard, its index there, its offset in bytes, and why."""

    shard: str
    index: int
    offset: int
    problem: str

    def __str__(self) -> str:
        return f"{self.shard} record {self.index} at byte {self.offset:,}: {self.problem}"


@dataclass(frozen=True)
class Salvage:
    """A data set without its broken records.

    `manifest` counts what is left; `moved` has the paths of the shards that were written anew,
    by name; `bad` names what was lost.
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
    """Checks that `shards` are there and have the bytes that the manifest says.

    Raises:
      JobError: the first that is missing, cut or grown.
    """
    sizes = open_folder(folder_path).sizes()
    for shard in shards:
        size = sizes.get(shard.name)
        if size is None:
            raise JobError(f"{folder_path}/{shard.name} is missing: {_REMEDY}")
        if size != shard.bytes:
            raise JobError(
                f"{folder_path}/{shard.name} has {size:,} bytes, the manifest says "
                f"{shard.bytes:,}: {_REMEDY}, or skip what is broken (--on_bad_record=skip)"
            )


def find_damaged_record(folder_path: str, shards: Sequence[ShardInfo]) -> DamagedRecord | None:
    """Returns the first broken record of `shards`, or None where all are as they were written."""
    folder = open_folder(folder_path)
    for shard in shards:
        _, _, bad = _examine(folder, shard)
        if bad:
            return bad[0]
    return None


def find_record(
    folder_path: str, shards: Sequence[ShardInfo], fingerprint: int
) -> tuple[str, int, int] | None:
    """Returns the shard, index and offset of the first record with this fingerprint."""
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
    """Returns a shard's bytes, where its sound records lie, and its broken ones.

    None in the second place says that all of it is as the manifest says.
    """
    data = folder.read(shard.name)
    if data is None:
        raise JobError(f"{folder.path}/{shard.name} is missing: {_REMEDY}")
    if len(data) == shard.bytes and crc32c(data) == shard.crc32c:
        return data, None, []
    sound, errors = scan_records(data)
    bad = [DamagedRecord(shard.name, e.index, e.offset, e.problem) for e in errors]
    for index in range(len(sound) + len(bad), shard.records):
        bad.append(DamagedRecord(shard.name, index, len(data), "the file ends before it"))
    if not bad:
        raise JobError(
            f"{folder.path}/{shard.name}: its records are sound, but not those of the manifest: "
            f"{_REMEDY}"
        )
    return data, sound, bad


def salvage_shards(path: str, into: str, *, max_bad_records: int) -> Salvage:
    """Reads every shard at `path` and writes what is left of the damaged ones to `into`.

    What an earlier call has written there is taken as it is: the order of a run's records
    depends on it.

    Raises:
      JobError: more than `max_bad_records` are broken, or a shard is missing.
      UserError: `into` belongs to another data set.
    """
    source, target = open_folder(path), open_folder(into)
    text = (source.read(MANIFEST_NAME) or b"").decode()
    manifest = manifest_from_json(text, where=f"{source.path}/{MANIFEST_NAME}")
    earlier = target.read(BAD_RECORDS_NAME)
    if earlier is not None:
        if json.loads(earlier)["manifest_crc32c"] != crc32c(text.encode()):
            raise UserError(f"{into} was made from other shards: take a new --run_dir")
        return load_salvage(into)
    bad: list[DamagedRecord] = []
    splits = []
    for split in manifest.splits:
        shards = tuple(
            _salvage(source, target, shard, bad, max_bad_records) for shard in split.shards
        )
        splits.append(Split(split.name, shards, split.label_counts))
    target.write(MANIFEST_NAME, manifest_to_json(replace(manifest, splits=tuple(splits))).encode())
    document = {
        "manifest_crc32c": crc32c(text.encode()),
        "bad_records": [asdict(record) for record in bad],
    }
    target.write(BAD_RECORDS_NAME, json.dumps(document, indent=1).encode())
    return load_salvage(into)


def _salvage(
    source: Folder, target: Folder, shard: ShardInfo, bad: list[DamagedRecord], most: int
) -> ShardInfo:
    """Writes what is left of one shard, if it is damaged; returns what there is of it now."""
    data, sound, found = _examine(source, shard)
    bad += found
    if len(bad) > most:
        raise JobError(
            f"{plural(len(bad), 'broken record')} or more, --max_bad_records={most} allows no "
            f"more; the last one: {bad[-1]}"
        )
    if sound is None:
        return shard
    kept = b"".join(data[begin:end] for begin, end in sound)
    prints = (fingerprint64(data[b + HEADER_BYTES : e - FOOTER_BYTES]) for b, e in sound)
    target.write(shard.name, kept)
    return ShardInfo(shard.name, len(sound), len(kept), crc32c(kept), sum(prints) % 2**64)


def load_salvage(into: str) -> Salvage:
    """Returns what `salvage_shards` has written to `into`.

    Raises:
      JobError: it is not there.
    """
    folder = open_folder(into)
    manifest, records = folder.read(MANIFEST_NAME), folder.read(BAD_RECORDS_NAME)
    if manifest is None or records is None:
        raise JobError(f"there is no {into}/{BAD_RECORDS_NAME}: start the job again")
    bad = tuple(DamagedRecord(**record) for record in json.loads(records)["bad_records"])
    return Salvage(
        manifest_from_json(manifest.decode(), where=f"{into}/{MANIFEST_NAME}"),
        {record.shard: f"{folder.path}/{record.shard}" for record in bad},
        bad,
    )
