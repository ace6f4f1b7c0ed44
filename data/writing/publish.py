"""The end of a write: the manifest and the files beside it."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Final

from tenfold.data.errors import JobError
from tenfold.data.format.manifest import (
    LABEL,
    MANIFEST_NAME,
    MAX_CLASSES,
    QUARANTINE_NAME,
    Feature,
    Manifest,
    SharedRecords,
    Split,
    manifest_from_json,
    manifest_to_json,
)
from tenfold.data.format.schema import Schema, SchemaError, merge_all
from tenfold.data.planning.layout import SourceStats
from tenfold.data.planning.write_plan import WritePlan
from tenfold.data.storage.folder import Conflict, Folder
from tenfold.data.units import plural
from tenfold.data.writing.ledger import (
    FinishedShard,
    WriteKeys,
    check_budget,
    read_fingerprints,
    read_finished,
    read_keys,
    remove_ledger,
    taken_over,
)
from tenfold.data.writing.output_folder import (
    manifest_keys,
    remove_temporaries,
    write_companions,
)
from tenfold.data.writing.splits.compare_splits import shared_records
from tenfold.data.writing.statistics.shard_statistics import merge_statistics
from tenfold.data.writing.tfds_metadata import NAMES as TFDS_NAMES
from tenfold.data.writing.tfds_metadata import tfds_files

# The folders of an absolute path or a URL at the beginning of a word or a quotation.
_FOLDERS: Final = re.compile(r"(?<![^\s'])(?:\w+:/)?/(?! )(?:[^/;,'\n]+/)+")


def publish(
    folder: Folder,
    stats: SourceStats,
    plan: WritePlan,
    keys: WriteKeys,
    max_bad_records: int | None,
    notes: tuple[str, ...] = (),
) -> Manifest | None:
    """Publish the manifest if every shard is finished.

    Args:
      folder: the output folder.
      stats: the statistics of the source, for the names of the classes.
      plan: the plan of the whole write.
      keys: the keys of the write.
      max_bad_records: broken records allowed in the whole data set; None allows none.
      notes: the source's notes, for the manifest.

    Returns:
      The manifest, which another writer may have published; None while shards are missing.

    Raises:
      JobError: the features of the shards do not match, too many records are broken, or another
        write has taken the folder over.
    """
    finished = read_finished(folder, [task.name for task in plan.tasks], keys)
    if len(finished) < len(plan.tasks):
        published = _published_by_another(folder, keys)
        if published is None and read_keys(folder) != keys:
            raise taken_over(folder)
        if published is not None:
            _remove_own_ledger(folder, keys)
        return published
    ordered = [finished[task.name] for task in plan.tasks]
    check_budget(ordered, max_bad_records)
    _check_chosen(plan, ordered)
    manifest = replace(
        _manifest(stats, plan, keys, finished),
        notes=(*map(_without_folders, notes), *_change_notes(ordered)),
        shared_records=_shared_records(folder, plan),
    )
    try:
        write_companions(folder, _quarantine_file(ordered) | tfds_files(manifest))
        folder.write(MANIFEST_NAME, manifest_to_json(manifest).encode(), replaces="")
    except FileNotFoundError:  # another writer has just published, and removed temporary files
        if _published_by_another(folder, keys) is None:
            raise
    except Conflict:
        raise taken_over(folder) from None
    remove_temporaries(folder, (MANIFEST_NAME, QUARANTINE_NAME, *TFDS_NAMES))
    remove_ledger(folder)
    return manifest


def _without_folders(note: str) -> str:
    """Return a note with the names of files alone, so that equal data gives equal manifests."""
    return _FOLDERS.sub("", note)


def _check_chosen(plan: WritePlan, shards: Sequence[FinishedShard]) -> None:
    """Check that transforms left records for every lane of every split.

    Raises:
      JobError: a lane is empty.
    """
    # The shards of each split begin with lane 0: their number is a multiple of the lanes.
    lanes = [[0] * plan.num_lanes for _ in plan.splits]
    left_out = [0] * len(plan.splits)
    for number, (task, shard) in enumerate(zip(plan.tasks, shards, strict=True)):
        lanes[task.split][number % plan.num_lanes] += shard.info.records
        left_out[task.split] += shard.left_out
    for split, counts, chosen_away in zip(plan.splits, lanes, left_out, strict=True):
        if min(counts) or not chosen_away:
            continue
        away = f"{plural(chosen_away, 'record')} of split '{split.name}'"
        if not any(counts):
            raise JobError(
                f"the transforms left out all {away}: None leaves a record out; "
                "return the features of those to keep"
            )
        raise JobError(
            f"the transforms left out {away}: the other {sum(counts):,} do not fill "
            f"{plan.num_lanes} lanes; take fewer workers or more data"
        )


def _shared_records(folder: Folder, plan: WritePlan) -> tuple[SharedRecords, ...]:
    """Return the exact duplicates between the splits."""
    if len(plan.splits) < 2:
        return ()
    shards: dict[str, list[str]] = {split.name: [] for split in plan.splits}
    for task in plan.tasks:
        shards[plan.splits[task.split].name].append(task.name)
    return shared_records(
        {split: map(partial(read_fingerprints, folder), names) for split, names in shards.items()}
    )


def _change_notes(shards: Iterable[FinishedShard]) -> Iterator[str]:
    """Yield a note on each way in which images were changed, with their number."""
    total: Counter[str] = Counter()
    for shard in shards:
        total.update(shard.changes)
    for change, count in sorted(total.items()):
        yield f"{plural(count, 'image')}: {change}"


def _remove_own_ledger(folder: Folder, keys: WriteKeys) -> None:
    """Remove notes that this writer added after an equal write had published the manifest."""
    if read_keys(folder) in (None, keys):
        remove_ledger(folder)


def _published_by_another(folder: Folder, keys: WriteKeys) -> Manifest | None:
    data = folder.read(MANIFEST_NAME)
    manifest = None if data is None else manifest_from_json(data.decode())
    return manifest if manifest and manifest_keys(manifest) == keys else None


def _manifest(
    stats: SourceStats, plan: WritePlan, keys: WriteKeys, finished: dict[str, FinishedShard]
) -> Manifest:
    of_split: list[list[FinishedShard]] = [[] for _ in plan.splits]
    for task in plan.tasks:
        of_split[task.split].append(finished[task.name])
    features = _common_schema(finished)
    classes = Feature(LABEL, "int64") in features and _are_classes(finished.values(), stats)
    return Manifest(
        num_lanes=plan.num_lanes,
        worker_counts=plan.worker_counts,
        features=features,
        splits=tuple(
            Split(
                split.name,
                tuple(shard.info for shard in shards),
                _label_counts(shards, len(stats.label_names)) if classes else (),
                merge_statistics((shard.statistics for shard in shards), features),
            )
            for split, shards in zip(plan.splits, of_split, strict=True)
        ),
        label_names=stats.label_names,
        source_fingerprint=keys.source,
        transform_key=keys.transform,
        layout_key=keys.layout,
        quarantined=sum(len(shard.quarantined) for shard in finished.values()),
        left_out=sum(shard.left_out for shard in finished.values()),
    )


def _common_schema(finished: dict[str, FinishedShard]) -> Schema:
    try:
        return merge_all(shard.schema for shard in finished.values())
    except SchemaError as error:
        raise JobError(f"the records of the source have different features: {error}") from error


def _are_classes(finished: Iterable[FinishedShard], stats: SourceStats) -> bool:
    """Whether labels are class indices: within the classes that the source knows, or 0 … n-1."""
    labels = {label for shard in finished for label in shard.label_counts}
    known = max(len(stats.label_names), stats.num_classes or 0)
    size = max([known, *(label + 1 for label in labels)])
    if not labels or min(labels) < 0 or size > max(known, MAX_CLASSES):
        return False
    return size in (known, len(labels)) or stats.num_classes is None


def _label_counts(shards: Sequence[FinishedShard], num_names: int) -> tuple[int, ...]:
    """Return the number of records of each class in a split; () if some have no label."""
    total: Counter[int] = Counter()
    for shard in shards:
        total.update(shard.label_counts)
    if not total or total.total() < sum(shard.info.records for shard in shards):
        return ()
    return tuple(total[label] for label in range(max(num_names, *(n + 1 for n in total))))


def _quarantine_file(shards: Sequence[FinishedShard]) -> dict[str, str]:
    lines = [
        json.dumps({"shard": shard.info.name, **asdict(note)}, ensure_ascii=False) + "\n"
        for shard in shards
        for note in shard.quarantined
    ]
    return {QUARANTINE_NAME: "".join(lines)} if lines else {}
