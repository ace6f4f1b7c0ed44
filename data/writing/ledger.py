"""The ledger of a write under way: its keys, and a receipt for every shard that is whole.

It lies in the folder `WORK` of the output, one small file per receipt, so that processes and
hosts need no lock; when the manifest is published it goes. Each receipt names the keys that it
belongs to: what a write that was overtaken by another still adds, counts for nobody.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tenfold.data.errors import JobError
from tenfold.data.format.manifest import Feature, ShardInfo
from tenfold.data.format.schema import Schema
from tenfold.data.storage.folder import Entry, Folder
from tenfold.data.storage.open_folder import for_each
from tenfold.data.units import plural

WORK: Final = ".tenfold-write"
KEYS_NAME: Final = f"{WORK}/keys.json"


@dataclass(frozen=True)
class WriteKeys:
    """What a write is made of, as hashes; equal keys give equal bytes."""

    source: str
    transform: str
    layout: str

    @property
    def digest(self) -> str:
        """The keys in 16 hexadecimal digits."""
        return hashlib.sha256(json.dumps(vars(self)).encode()).hexdigest()[:16]

    def differences(self, other: "WriteKeys") -> tuple[str, ...]:
        """Returns which of ``source``, ``transforms`` and ``layout`` differ."""
        pairs = {
            "source": (self.source, other.source),
            "transforms": (self.transform, other.transform),
            "layout": (self.layout, other.layout),
        }
        return tuple(name for name, (mine, its) in pairs.items() if mine != its)


@dataclass(frozen=True)
class SkippedRecord:
    """One source record that was left out: its name and the reason."""

    record: str
    reason: str


@dataclass(frozen=True)
class FinishedShard:
    """What became of one shard: `label_counts` maps classes to records, `quarantined` names
    what it should have held but does not.
    """

    info: ShardInfo
    schema: Schema
    label_counts: dict[int, int]
    quarantined: tuple[SkippedRecord, ...] = ()


def read_keys(folder: Folder) -> WriteKeys | None:
    """Returns the keys of the unfinished write in `folder`, or None."""
    data = folder.read(KEYS_NAME)
    try:
        return None if data is None else WriteKeys(**json.loads(data))
    except (ValueError, TypeError):
        return WriteKeys("damaged", "damaged", "damaged")


def write_keys(folder: Folder, keys: WriteKeys) -> None:
    """Begins a ledger.

    Raises:
      Conflict: another write of other keys has begun one.
    """
    folder.write(KEYS_NAME, json.dumps(vars(keys)).encode(), replaces="")


def receipt_name(shard: str) -> str:
    """Returns the name of a shard's receipt in its output folder."""
    return f"{WORK}/{shard}.json"


def write_receipt(folder: Folder, receipt: FinishedShard, keys: str) -> None:
    """Notes that a shard of the write of `keys` (a digest) is whole; its file must be in place."""
    document = {"keys": keys, **_to_json(receipt)}
    folder.write(receipt_name(receipt.info.name), json.dumps(document).encode())


def read_receipts(
    folder: Folder, shards: Iterable[str], keys: WriteKeys
) -> dict[str, FinishedShard]:
    """Returns the receipts that there are of `shards` in the write of `keys`, by shard.

    One counts only while its shard's file stands there with the bytes that it names, and with
    the CRC32C, where the storage knows that.
    """
    present, noted = folder.entries(), folder.sizes(WORK)
    named = [shard for shard in shards if f"{shard}.json" in noted and shard in present]
    texts = for_each(folder, lambda shard: folder.read(receipt_name(shard)), named)
    found = {}
    for shard, text in zip(named, texts, strict=True):
        receipt = _from_json(text, keys.digest)
        if receipt and _stands(receipt.info, present[shard]):
            found[shard] = receipt
    return found


def _stands(info: ShardInfo, entry: Entry) -> bool:
    return info.bytes == entry.bytes and entry.crc32c in (None, info.crc32c)


def check_budget(receipts: Iterable[FinishedShard], allowed: int | None) -> None:
    """Checks the broken records of several shards, as `check_bad_records` does."""
    check_bad_records([note for receipt in receipts for note in receipt.quarantined], allowed)


def check_bad_records(bad: Sequence[SkippedRecord], allowed: int | None) -> None:
    """Checks the number of broken records.

    Raises:
      JobError: there are more than `allowed`; None allows none.
    """
    if len(bad) > (allowed or 0):
        raise JobError(
            f"{plural(len(bad), 'broken record')}, more than --max_bad_records={allowed or 0} "
            f"allows; the last one: {bad[-1].record}: {bad[-1].reason}"
        )


def forget_receipts(folder: Folder, shards: Iterable[str]) -> None:
    """Removes the receipts of `shards`, so that they are written again."""
    named = set(folder.sizes(WORK)) & {f"{shard}.json" for shard in shards}
    for_each(folder, lambda name: folder.remove(f"{WORK}/{name}"), sorted(named))


def remove_ledger(folder: Folder) -> None:
    """Removes a write's ledger; the keys go last, so that a rest is still known for one."""
    names = {f"{WORK}/{name}" for name in folder.sizes(WORK)}
    for_each(folder, folder.remove, sorted(names - {KEYS_NAME}))
    if KEYS_NAME in names:
        folder.remove(KEYS_NAME)
    folder.remove_folder(WORK)


def taken_over(folder: Folder) -> JobError:
    """Returns the error of a write that finds files of another in its place."""
    return JobError(
        f"output '{folder.path}' has been taken over by another write of other shards: "
        "choose another --output, or run this command again with --overwrite"
    )


def _to_json(receipt: FinishedShard) -> dict[str, Any]:
    return {
        "info": vars(receipt.info),
        "schema": [[f.name, f.kind, list(f.shape)] for f in receipt.schema],
        "label_counts": sorted(receipt.label_counts.items()),
        "quarantined": [[note.record, note.reason] for note in receipt.quarantined],
    }


def _from_json(data: bytes | None, keys: str) -> FinishedShard | None:
    """Returns the receipt, or None where it is damaged or of other keys: the shard is then
    written again.
    """
    try:
        document = json.loads(data or b"")
        if document["keys"] != keys:
            return None
        return FinishedShard(
            info=ShardInfo(**document["info"]),
            schema=tuple(
                Feature(name, kind, tuple(shape)) for name, kind, shape in document["schema"]
            ),
            label_counts={int(label): int(count) for label, count in document["label_counts"]},
            quarantined=tuple(SkippedRecord(*note) for note in document["quarantined"]),
        )
    except (ValueError, KeyError, TypeError):
        return None
