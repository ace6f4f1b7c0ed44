"""The ledger of an unfinished write: its keys, and a note for every finished shard.

The ledger is the folder `WORK` of the output, with one small file per shard, so that processes
and hosts need no lock; publishing the manifest removes it. Each note carries the digest of the
keys that it belongs to: notes of a superseded write are ignored.
"""

import hashlib
import json
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tenfold.data.errors import JobError
from tenfold.data.format.json_fields import from_json_fields
from tenfold.data.format.manifest import Feature, ShardInfo
from tenfold.data.format.schema import Schema
from tenfold.data.storage.folder import Entry, Folder
from tenfold.data.storage.open_folder import for_each
from tenfold.data.units import plural
from tenfold.data.writing.statistics.shard_statistics import (
    ShardStatistics,
    shard_statistics_from_json,
    shard_statistics_to_json,
)

WORK: Final = ".tenfold-write"
KEYS_NAME: Final = f"{WORK}/keys.json"
_FINGERPRINTS: Final = ".fingerprints"


@dataclass(frozen=True)
class WriteKeys:
    """The inputs of a write as hashes; writes with equal keys write equal bytes."""

    source: str
    transform: str
    layout: str

    @property
    def digest(self) -> str:
        """The keys in 16 hexadecimal digits."""
        return hashlib.sha256(json.dumps(vars(self)).encode()).hexdigest()[:16]

    def differences(self, other: "WriteKeys") -> tuple[str, ...]:
        """Return those of source, transforms and layout that differ."""
        pairs = {
            "source": (self.source, other.source),
            "transforms or --check": (self.transform, other.transform),
            "layout": (self.layout, other.layout),
        }
        return tuple(name for name, (mine, its) in pairs.items() if mine != its)


@dataclass(frozen=True)
class SkippedRecord:
    """A source record that was left out: its name and the reason."""

    record: str
    reason: str


@dataclass(frozen=True)
class FinishedShard:
    """A shard that is written in full.

    `label_counts` maps each class to its number of records; `quarantined` lists the source
    records that belong to the shard but were left out as broken; `statistics` are the sums over
    the values of its features; `left_out` counts the source records that a transform chose to
    leave out, `changes` the images that a transform had to change.
    """

    info: ShardInfo
    schema: Schema
    label_counts: dict[int, int]
    quarantined: tuple[SkippedRecord, ...] = ()
    statistics: ShardStatistics = field(default_factory=ShardStatistics)
    left_out: int = 0
    changes: dict[str, int] = field(default_factory=dict)


def read_keys(folder: Folder) -> WriteKeys | None:
    """Return the keys of the unfinished write in `folder`, or None if there is none."""
    data = folder.read(KEYS_NAME)
    try:
        return None if data is None else WriteKeys(**json.loads(data))
    except (ValueError, TypeError, RecursionError):
        return WriteKeys("damaged", "damaged", "damaged")


def write_keys(folder: Folder, keys: WriteKeys) -> None:
    """Begin a ledger.

    Raises:
      Conflict: another write with other keys has begun a ledger here.
    """
    folder.write(KEYS_NAME, json.dumps(vars(keys)).encode(), replaces="")


def record_finished(folder: Folder, shard: FinishedShard, keys: str) -> None:
    """Note a finished shard of the write of `keys` (a digest); its file must be in place.

    The note need not be durable, as the shard is: one that a crash of the machine has damaged
    does not count, and its shard is written again.
    """
    document = {"keys": keys, **_to_json(shard)}
    folder.write(_note_name(shard.info.name), json.dumps(document).encode(), durable=False)


def record_fingerprints(folder: Folder, shard: str, fingerprints: "array[int]") -> None:
    """Note the fingerprints of a shard's records, 8 bytes each, for comparing the splits."""
    folder.write(f"{WORK}/{shard}{_FINGERPRINTS}", memoryview(fingerprints).tobytes())


def read_fingerprints(folder: Folder, shard: str) -> bytes:
    """Return the fingerprints of a finished shard, 8 bytes each in this machine's byte order.

    Empty if they were not noted.
    """
    return folder.read(f"{WORK}/{shard}{_FINGERPRINTS}") or b""


def read_finished(
    folder: Folder, shards: Iterable[str], keys: WriteKeys
) -> dict[str, FinishedShard]:
    """Return the finished ones of `shards` in the write of `keys`, by name.

    A note counts only while the shard's file is in the folder with the noted size and, where
    the storage knows it, the noted CRC32C.
    """
    present, notes = folder.entries(), folder.sizes(WORK)
    names = [shard for shard in shards if f"{shard}.json" in notes and shard in present]
    texts = for_each(folder, lambda shard: folder.read(_note_name(shard)), names)
    found = {}
    for name, text in zip(names, texts, strict=True):
        shard = _from_json(text, keys.digest)
        if shard and _is_intact(shard.info, present[name]):
            found[name] = shard
    return found


def _note_name(shard: str) -> str:
    return f"{WORK}/{shard}.json"


def _is_intact(info: ShardInfo, entry: Entry) -> bool:
    return info.bytes == entry.bytes and entry.crc32c in (None, info.crc32c)


def check_budget(shards: Iterable[FinishedShard], max_bad_records: int | None) -> None:
    """Check the broken records of several shards together, as `check_bad_records` does."""
    check_bad_records([note for shard in shards for note in shard.quarantined], max_bad_records)


def check_bad_records(bad: Sequence[SkippedRecord], max_bad_records: int | None) -> None:
    """Check the number of broken records; a `max_bad_records` of None allows none.

    Raises:
      JobError: there are more than `max_bad_records`.
    """
    if len(bad) > (max_bad_records or 0):
        raise JobError(
            f"{plural(len(bad), 'broken record')}, more than "
            f"--max_bad_records={max_bad_records or 0} allows; the last one: "
            f"{bad[-1].record}: {bad[-1].reason}"
        )


def forget_finished(folder: Folder, shards: Iterable[str]) -> None:
    """Remove the notes of `shards`, so that they are written again."""
    names = set(folder.sizes(WORK)) & {f"{shard}.json" for shard in shards}
    for_each(folder, lambda name: folder.remove(f"{WORK}/{name}"), sorted(names))


def remove_ledger(folder: Folder) -> None:
    """Remove the ledger, its keys last: an interrupted removal still leaves a known ledger."""
    names = {f"{WORK}/{name}" for name in folder.sizes(WORK)}
    for_each(folder, folder.remove, sorted(names - {KEYS_NAME}))
    if KEYS_NAME in names:
        folder.remove(KEYS_NAME)
    folder.remove_folder(WORK)


def taken_over(folder: Folder) -> JobError:
    """Return the error of a write that finds another write's files in place of its own."""
    return JobError(
        f"output '{folder.path}' has been taken over by another write of other shards: "
        "choose another --output, or run this command again with --overwrite"
    )


def _to_json(shard: FinishedShard) -> dict[str, Any]:
    return {
        "info": vars(shard.info),
        "schema": [[f.name, f.kind, list(f.shape), f.optional, f.sequence] for f in shard.schema],
        "label_counts": sorted(shard.label_counts.items()),
        "quarantined": [[note.record, note.reason] for note in shard.quarantined],
        "statistics": shard_statistics_to_json(shard.statistics),
        "left_out": shard.left_out,
        "changes": shard.changes,
    }


def _from_json(data: bytes | None, keys: str) -> FinishedShard | None:
    """Return the noted shard; None for a damaged note or other keys: write the shard again."""
    try:
        document = json.loads(data or b"")
        if document["keys"] != keys:
            return None
        return FinishedShard(
            info=from_json_fields(ShardInfo, document["info"]),
            schema=tuple(
                Feature(name, kind, tuple(shape), bool(optional), bool(sequence))
                for name, kind, shape, optional, sequence in document["schema"]
            ),
            label_counts={int(label): int(count) for label, count in document["label_counts"]},
            quarantined=tuple(SkippedRecord(*note) for note in document["quarantined"]),
            statistics=shard_statistics_from_json(document["statistics"]),
            left_out=int(document["left_out"]),
            changes={str(change): int(count) for change, count in document["changes"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
