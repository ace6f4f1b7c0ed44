"""The output folder of a write: what stands there already, how one begins, how it is published."""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from tenfold.data.errors import UserError
from tenfold.data.format.manifest import (
    MANIFEST_NAME,
    Manifest,
    manifest_from_json,
    parse_shard_name,
)
from tenfold.data.format.tfds_metadata import NAMES as TFDS_NAMES
from tenfold.data.planning.layout import SourceStats
from tenfold.data.planning.write_plan import ShardTask, WritePlan
from tenfold.data.storage.folder import TEMPORARY_SUFFIX, Conflict, Folder
from tenfold.data.storage.open_folder import for_each
from tenfold.data.writing.ledger import (
    WriteKeys,
    forget_receipts,
    read_keys,
    read_receipts,
    remove_ledger,
    taken_over,
    write_keys,
)

# Raised when the same input gives other bytes than before.
WRITER_REVISION: Final = 1

QUARANTINE_NAME: Final = "quarantine.jsonl"


def plan_keys(stats: SourceStats, plan: WritePlan, *, transform_key: str = "") -> WriteKeys:
    """Returns the keys of writing a source by `plan`."""
    layout = {
        "revision": WRITER_REVISION,
        "seed": plan.shuffle_seed,
        "lanes": plan.num_lanes,
        "worker_counts": plan.worker_counts,
        "splits": [
            [split.name, split.first, split.examples, split.copies, split.layout.num_shards]
            for split in plan.splits
        ],
    }
    digest = hashlib.sha256(json.dumps(layout).encode()).hexdigest()[:16]
    return WriteKeys(stats.fingerprint, transform_key, digest)


def find_finished(folder: Folder, keys: WriteKeys, *, overwrite: bool) -> Manifest | None:
    """Returns the manifest of a finished write with these keys, or None where one must begin.

    A finished write of other keys is removed with `overwrite`; so is one whose shards are gone.

    Raises:
      UserError: the folder holds another data set, and `overwrite` is not set.
    """
    data = folder.read(MANIFEST_NAME)
    if data is None:
        return None
    if not overwrite:
        manifest = _expect_keys(folder, data, keys)
        if _is_whole(folder, manifest):
            remove_ledger(folder)
            return manifest
        write_keys(folder, keys)  # the shards that are left are known to be ours
    folder.remove(MANIFEST_NAME)
    return None


def count_kept(
    folder: Folder, keys: WriteKeys, tasks: Sequence[ShardTask], *, resume: bool, overwrite: bool
) -> int:
    """Returns how many shards of `tasks` a write would find finished; changes nothing.

    Raises:
      UserError: the folder holds something else, and `overwrite` is not set.
    """
    if overwrite:
        return 0
    data = folder.read(MANIFEST_NAME)
    if data is not None:
        manifest = _expect_keys(folder, data, keys)
        shards = (shard for split in manifest.splits for shard in split.shards)
        wanted, there = {shard.name: shard.bytes for shard in shards}, folder.sizes()
        return sum(there.get(task.name) == wanted[task.name] for task in tasks)
    standing = read_keys(folder)
    if standing is None:
        _expect_no_shards(folder)
    elif standing != keys:
        raise _other_data(folder, keys.differences(standing), "holds unfinished shards")
    if standing is None or not resume:
        return 0
    return len(read_receipts(folder, [task.name for task in tasks], keys))


def _expect_keys(folder: Folder, data: bytes, keys: WriteKeys) -> Manifest:
    manifest = manifest_from_json(data.decode(), where=f"{folder.path}/{MANIFEST_NAME}")
    standing = manifest_keys(manifest)
    if standing != keys:
        raise _other_data(folder, keys.differences(standing), "holds other shards")
    return manifest


def manifest_keys(manifest: Manifest) -> WriteKeys:
    """Returns the keys that a manifest carries."""
    return WriteKeys(manifest.source_fingerprint, manifest.transform_key, manifest.layout_key)


def _is_whole(folder: Folder, manifest: Manifest) -> bool:
    sizes = folder.sizes()
    shards = (shard for split in manifest.splits for shard in split.shards)
    return all(sizes.get(shard.name) == shard.bytes for shard in shards)


def _other_data(folder: Folder, differences: Sequence[str], what: str) -> UserError:
    return UserError(
        f"output '{folder.path}' {what}, made with a different {' and '.join(differences)}: "
        "choose another --output, or replace them with --overwrite"
    )


def begin_output(
    folder: Folder,
    keys: WriteKeys,
    plan: Sequence[ShardTask],
    tasks: Sequence[ShardTask],
    *,
    resume: bool,
    overwrite: bool,
) -> None:
    """Makes the folder ready for the shards of `tasks`, those of `plan` that are this process's,
    keeping finished ones with `resume`.

    Raises:
      UserError: the folder holds an unfinished write of other data, or shards of unknown
        origin, and `overwrite` is not set; or another write has just begun there.
      JobError: another write has just ended there.
    """
    standing = read_keys(folder)
    if standing not in (keys, None):
        if not overwrite:
            raise _other_data(folder, keys.differences(standing), "holds unfinished shards")
        remove_ledger(folder)
    if standing != keys:
        if not overwrite:
            _expect_no_shards(folder)
        _begin_ledger(folder, keys)
        if overwrite:  # from now on what stands there is nobody else's
            _write_beside(folder, {})
            _remove_shards(folder)
    else:  # what was to be overwritten may stand yet, if that write was killed
        _remove_shards(folder, except_for={task.name for task in plan})
    names = {task.name for task in tasks}
    if not resume or overwrite:
        forget_receipts(folder, names)
    _remove_temporaries(folder, names)


def _begin_ledger(folder: Folder, keys: WriteKeys) -> None:
    """Two writes may come so far at once; only one's keys stay, and none beside a manifest."""
    try:
        write_keys(folder, keys)
    except Conflict:
        standing = read_keys(folder) or WriteKeys("gone", "gone", "gone")
        raise _other_data(
            folder, keys.differences(standing), "is being written to by another process"
        ) from None
    if folder.read(MANIFEST_NAME) is not None:
        remove_ledger(folder)
        raise taken_over(folder)


def _remove_shards(folder: Folder, *, except_for: Collection[str] = ()) -> None:
    names = {name for name in folder.sizes() if parse_shard_name(name)}
    for_each(folder, folder.remove, sorted(names.difference(except_for)))


def _write_beside(folder: Folder, files: Mapping[str, str]) -> None:
    """Makes the files that stand beside a manifest, and removes those of the one before."""
    for name in (QUARANTINE_NAME, *TFDS_NAMES):
        if name in files:
            folder.write(name, files[name].encode(errors="surrogateescape"))
        else:
            folder.remove(name)


def _expect_no_shards(folder: Folder) -> None:
    foreign = next((name for name in sorted(folder.sizes()) if parse_shard_name(name)), None)
    if foreign and read_keys(folder) is None:  # else a write has begun meanwhile
        raise UserError(
            f"output '{folder.path}' holds {foreign}, but no manifest says what it is: "
            "choose another --output, or replace the shards with --overwrite"
        )


def _remove_temporaries(folder: Folder, files: Iterable[str]) -> None:
    """Removes what killed processes left of these files."""
    starts = tuple(f".{file}." for file in files)
    for name in folder.sizes():
        if name.endswith(TEMPORARY_SUFFIX) and name.startswith(starts):
            folder.remove(name)
