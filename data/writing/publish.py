"""End a write: publish the manifest and the files beside it."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

from tenfold.data.errors import JobError
from tenfold.data.format.manifest import (
    MANIFEST_NAME,
    Manifest,
    Split,
    manifest_from_json,
    manifest_to_json,
)
from tenfold.data.format.schema import Schema, SchemaError, merge_all
from tenfold.data.format.tfds_metadata import NAMES as TFDS_NAMES
from tenfold.data.format.tfds_metadata import tfds_files
from tenfold.data.planning.layout import SourceStats
from tenfold.data.planning.write_plan import WritePlan
from tenfold.data.storage.folder import Conflict, Folder
from tenfold.data.writing.ledger import (
    FinishedShard,
    WriteKeys,
    check_budget,
    read_keys,
    read_receipts,
    remove_ledger,
    taken_over,
)
from tenfold.data.writing.output_folder import (
    QUARANTINE_NAME,
    _remove_temporaries,
    _write_beside,
    manifest_keys,
)

# Labels beyond this are taken for numbers, not for classes, unless the classes have names.
MAX_CLASSES: Final = 10_000


def publish(
    folder: Folder,
    stats: SourceStats,
    plan: WritePlan,
    keys: WriteKeys,
    max_bad_records: int | None,
) -> Manifest | None:
    """Publishes the manifest if every shard has its receipt; returns it, or None.

    Raises:
      JobError: the shards do not fit each other, too many records are broken, or another write
        has taken the folder over.
    """
    receipts = read_receipts(folder, [task.name for task in plan.tasks], keys)
    if len(receipts) < len(plan.tasks):
        published = _published_by_another(folder, keys)
        if published is None and read_keys(folder) != keys:
            raise taken_over(folder)
        return published
    ordered = [receipts[task.name] for task in plan.tasks]
    check_budget(ordered, max_bad_records)
    manifest = _manifest(stats, plan, keys, receipts)
    try:
        _write_beside(folder, _quarantine_file(ordered) | tfds_files(manifest))
        folder.write(MANIFEST_NAME, manifest_to_json(manifest).encode(), replaces="")
    except FileNotFoundError:  # another task of the processes has just published, and cleaned up
        if _published_by_another(folder, keys) is None:
            raise
    except Conflict:
        raise taken_over(folder) from None
    _remove_temporaries(folder, (MANIFEST_NAME, QUARANTINE_NAME, *TFDS_NAMES))
    remove_ledger(folder)
    return manifest


def _published_by_another(folder: Folder, keys: WriteKeys) -> Manifest | None:
    data = folder.read(MANIFEST_NAME)
    manifest = None if data is None else manifest_from_json(data.decode())
    return manifest if manifest and manifest_keys(manifest) == keys else None


def _manifest(
    stats: SourceStats, plan: WritePlan, keys: WriteKeys, receipts: dict[str, FinishedShard]
) -> Manifest:
    of_split: list[list[FinishedShard]] = [[] for _ in plan.splits]
    for task in plan.tasks:
        of_split[task.split].append(receipts[task.name])
    return Manifest(
        num_lanes=plan.num_lanes,
        worker_counts=plan.worker_counts,
        features=_common_schema(receipts),
        splits=tuple(
            Split(
                split.name,
                tuple(receipt.info for receipt in parts),
                _label_counts(parts, len(stats.label_names)),
            )
            for split, parts in zip(plan.splits, of_split, strict=True)
        ),
        label_names=stats.label_names,
        source_fingerprint=keys.source,
        transform_key=keys.transform,
        layout_key=keys.layout,
        quarantined=sum(len(receipt.quarantined) for receipt in receipts.values()),
    )


def _common_schema(receipts: dict[str, FinishedShard]) -> Schema:
    try:
        return merge_all(receipt.schema for receipt in receipts.values())
    except SchemaError as error:
        raise JobError(f"the records of the source do not fit each other: {error}") from error


def _label_counts(receipts: Sequence[FinishedShard], num_labels: int) -> tuple[int, ...]:
    """Returns the records of each class, () where labels are no class indices."""
    total: dict[int, int] = {}
    for receipt in receipts:
        for label, count in receipt.label_counts.items():
            total[label] = total.get(label, 0) + count
    size = max([num_labels, *(label + 1 for label in total)])
    if not total or min(total) < 0 or size > max(num_labels, MAX_CLASSES):
        return ()
    return tuple(total.get(label, 0) for label in range(size))


def _quarantine_file(receipts: Sequence[FinishedShard]) -> dict[str, str]:
    lines = [
        json.dumps({"shard": receipt.info.name, **asdict(note)}, ensure_ascii=False) + "\n"
        for receipt in receipts
        for note in receipt.quarantined
    ]
    return {QUARANTINE_NAME: "".join(lines)} if lines else {}
