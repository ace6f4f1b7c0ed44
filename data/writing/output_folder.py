"""The output folder of a write: checks of its contents, and the beginning of a write in it."""

import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from tenfold.data.errors import UserError
from tenfold.data.format.manifest import (
    MANIFEST_NAME,
    QUARANTINE_NAME,
    Manifest,
    manifest_from_json,
    parse_shard_name,
)
from tenfold.data.planning.layout import SourceStats
from tenfold.data.planning.write_plan import ShardTask, WritePlan
from tenfold.data.storage.folder import TEMPORARY_SUFFIX, Conflict, Folder
from tenfold.data.storage.local_folder import LocalFolder
from tenfold.data.storage.open_folder import for_each
from tenfold.data.writing.ledger import (
    WriteKeys,
    forget_finished,
    read_finished,
    read_keys,
    remove_ledger,
    taken_over,
    write_keys,
)
from tenfold.data.writing.tfds_metadata import NAMES as TFDS_NAMES

# Raise when the same input gives other bytes than before: shards of two revisions never mix.
WRITER_REVISION: Final = 1


@contextmanager
def claim_output(folder: Folder, *, num_writers: int) -> Iterator[None]:
    """Keep other writes out of a local folder until the end of the context.

    Locks the directory itself with flock(2): exclusively for a single writer, shared for one of
    several writers. The kernel releases the lock when the process ends, and no file is left.
    Storage without such locks (remote storage, NFS) is not locked: there, writers of equal
    shards replace each other's files by equal ones.

    Raises:
      UserError: another process is writing to the folder.
    """
    if not isinstance(folder, LocalFolder):
        yield
        return
    descriptor = os.open(folder.path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _lock(descriptor, fcntl.LOCK_EX if num_writers == 1 else fcntl.LOCK_SH, folder)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, operation: int, folder: Folder) -> None:
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise UserError(
                f"output '{folder.path}' is being written to by another process: "
                "wait until it has finished, or choose another --output"
            ) from None


def plan_keys(stats: SourceStats, plan: WritePlan, *, transform_key: str = "") -> WriteKeys:
    """Return the keys of writing a source by `plan`."""
    layout: dict[str, object] = {
        "revision": WRITER_REVISION,
        "seed": plan.shuffle_seed,
        "lanes": plan.num_lanes,
        "worker_counts": plan.worker_counts,
        "splits": [
            [split.name, split.first, split.examples, split.copies, split.layout.num_shards]
            for split in plan.splits
        ],
    }
    pools = [split.pool_key for split in plan.splits]
    if any(pools):  # otherwise the key stays that of earlier versions, which wrote equal shards
        layout["pools"] = pools
    digest = hashlib.sha256(json.dumps(layout).encode()).hexdigest()[:16]
    return WriteKeys(stats.fingerprint, transform_key, digest)


def find_finished(folder: Folder, keys: WriteKeys, *, overwrite: bool) -> Manifest | None:
    """Return the manifest of a finished write with these keys, or None if a write must begin.

    With `overwrite`, the manifest of a finished write is removed; so is a manifest of these keys
    whose shards are missing or have another size.

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
        # With a ledger of the same keys, the new write may replace the shards that are left.
        write_keys(folder, keys)
    folder.remove(MANIFEST_NAME)
    return None


def count_kept(
    folder: Folder, keys: WriteKeys, tasks: Sequence[ShardTask], *, resume: bool, overwrite: bool
) -> int:
    """Return the number of shards of `tasks` that a write would keep; change nothing.

    Args:
      folder: the output folder.
      keys: the keys of the write.
      tasks: the shards that the write would leave in the folder.
      resume: keep the finished shards of an unfinished write.
      overwrite: keep none.

    Raises:
      UserError: the folder holds other shards, and `overwrite` is not set.
    """
    if overwrite:
        return 0
    data = folder.read(MANIFEST_NAME)
    if data is not None:
        manifest = _expect_keys(folder, data, keys)
        shards = (shard for split in manifest.splits for shard in split.shards)
        wanted, present = {shard.name: shard.bytes for shard in shards}, folder.sizes()
        return sum(present.get(task.name) == wanted[task.name] for task in tasks)
    found = read_keys(folder)
    if found is None:
        _expect_no_shards(folder)
    elif found != keys:
        raise _other_data(folder, keys.differences(found), "holds unfinished shards")
    if found is None or not resume:
        return 0
    return len(read_finished(folder, [task.name for task in tasks], keys))


def _expect_keys(folder: Folder, data: bytes, keys: WriteKeys) -> Manifest:
    manifest = manifest_from_json(data.decode(), where=f"{folder.path}/{MANIFEST_NAME}")
    found = manifest_keys(manifest)
    if found != keys:
        raise _other_data(folder, keys.differences(found), "holds other shards")
    return manifest


def manifest_keys(manifest: Manifest) -> WriteKeys:
    """Return the keys that a manifest carries."""
    return WriteKeys(manifest.source_fingerprint, manifest.transform_key, manifest.layout_key)


def _is_whole(folder: Folder, manifest: Manifest) -> bool:
    sizes = folder.sizes()
    shards = (shard for split in manifest.splits for shard in split.shards)
    return all(sizes.get(shard.name) == shard.bytes for shard in shards)


def _other_data(folder: Folder, differences: Sequence[str], state: str) -> UserError:
    return UserError(
        f"output '{folder.path}' {state}, made with a different {' and '.join(differences)}: "
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
    num_writers: int = 1,
) -> None:
    """Make the folder ready for writing `tasks`.

    Args:
      folder: the output folder.
      keys: the keys of the write.
      plan: all shards of the write.
      tasks: those of `plan` that this writer writes.
      resume: keep the finished shards of an unfinished write with these keys.
      overwrite: remove the shards of any other write.
      num_writers: the number of writers that share the write.

    Raises:
      UserError: the folder holds an unfinished write of other data, or shards of unknown
        origin, and `overwrite` is not set; or another write has just begun there.
      JobError: another write has just finished there.
    """
    found = read_keys(folder)
    if found not in (keys, None):
        if not overwrite:
            raise _other_data(folder, keys.differences(found), "holds unfinished shards")
        remove_ledger(folder)
    if found != keys:
        if not overwrite:
            _expect_no_shards(folder)
        _begin_ledger(folder, keys)
        if overwrite:  # from here on the ledger is ours, so no other write's files can be hit
            write_companions(folder, {})
            _remove_shards(folder)
    else:
        # An overwrite with these keys may have been killed before it removed the old shards.
        _remove_shards(folder, except_for={task.name for task in plan})
    names = {task.name for task in tasks}
    if not resume or overwrite:
        forget_finished(folder, names)
    remove_temporaries(folder, names, keep_live=num_writers > 1)


def _begin_ledger(folder: Folder, keys: WriteKeys) -> None:
    """Create the keys file.

    Two writers can race here. One creates the keys file; the other raises, as does a writer
    that finds a manifest published meanwhile.
    """
    try:
        write_keys(folder, keys)
    except Conflict:
        found = read_keys(folder) or WriteKeys("gone", "gone", "gone")
        raise _other_data(
            folder, keys.differences(found), "is being written to by another process"
        ) from None
    if folder.read(MANIFEST_NAME) is not None:
        remove_ledger(folder)
        raise taken_over(folder)


def _remove_shards(folder: Folder, *, except_for: Collection[str] = ()) -> None:
    names = {name for name in folder.sizes() if parse_shard_name(name)}
    for_each(folder, folder.remove, sorted(names.difference(except_for)))


def write_companions(folder: Folder, files: Mapping[str, str]) -> None:
    """Write the files that belong beside a manifest; remove those of an earlier manifest.

    Args:
      folder: the output folder.
      files: the text of each file, by name; a companion that is not in it is removed.
    """
    for name in (QUARANTINE_NAME, *TFDS_NAMES):
        if name in files:
            folder.write(name, files[name].encode(errors="surrogateescape"))
        else:
            folder.remove(name)


def _expect_no_shards(folder: Folder) -> None:
    foreign = next((name for name in sorted(folder.sizes()) if parse_shard_name(name)), None)
    # With keys, the shard belongs to a write that has begun since this one looked.
    if foreign and read_keys(folder) is None:
        raise UserError(
            f"output '{folder.path}' holds {foreign}, but no manifest says what it is: "
            "choose another --output, or replace the shards with --overwrite"
        )


def remove_temporaries(folder: Folder, files: Iterable[str], *, keep_live: bool = False) -> None:
    """Remove temporary files that killed processes left for the names in `files`.

    Args:
      folder: the output folder.
      files: the names of the complete files.
      keep_live: keep the files that a living process of this host writes, as several writers do.
    """
    starts = tuple(f".{file}." for file in files)
    for name in folder.sizes():
        if not (name.endswith(TEMPORARY_SUFFIX) and name.startswith(starts)):
            continue
        if not (keep_live and _is_being_written(os.path.join(folder.path, name))):
            folder.remove(name)


def _is_being_written(path: str) -> bool:
    """Whether a living process holds the lock of a temporary file; see `write_shard`."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except OSError as error:
        return error.errno == errno.EWOULDBLOCK
    finally:
        os.close(descriptor)
