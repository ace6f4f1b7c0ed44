"""Read every byte of a data set and compare it with the manifest."""

import io
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO, Final

from tenfold.data.errors import JobError
from tenfold.data.format.manifest import (
    MANIFEST_NAME,
    QUARANTINE_NAME,
    Feature,
    Manifest,
    ShardInfo,
    Split,
    parse_shard_name,
)
from tenfold.data.format.tfrecord import RecordError, extend_crc32c, fingerprint64, read_frames
from tenfold.data.integrity.check_example import example_problem, label_of
from tenfold.data.runtime.process_pool import run_pool
from tenfold.data.storage.folder import Folder
from tenfold.data.storage.local_folder import LocalFolder
from tenfold.data.storage.open_folder import open_folder

# Problems of one shard beyond this many are counted, not listed.
MAX_LISTED: Final = 20
_REMEDY: Final = "remove the shard and run the same 'tenfold write' again"
_REMEDY_MANIFEST: Final = "restore the manifest, or write the data set again"


@dataclass(frozen=True)
class ShardCheck:
    """What the file of one shard holds, and every problem as one line.

    Attributes:
      name: Name of the shard.
      records: Its records.
      bytes: Its size.
      problems: Its differences from the manifest.
      labels: The number of records of each label; None if the labels could not be counted.
    """

    name: str
    records: int
    bytes: int
    problems: tuple[str, ...]
    labels: Mapping[int, int] | None = None


@dataclass(frozen=True)
class Verification:
    """The result of `verify_shards`: shards, records and bytes read, and every problem."""

    shards: int
    records: int
    bytes: int
    problems: tuple[str, ...]


def verify_shards(
    path: str,
    manifest: Manifest,
    *,
    splits: Sequence[str] = (),
    processes: int = 1,
    on_progress: Callable[[int], None] = lambda num_bytes: None,
) -> Verification:
    """Read the shards at `path` and compare them with `manifest`.

    Args:
      path: The folder of shards, local or remote.
      manifest: The manifest to compare with.
      splits: Names of the splits to read; () for all.
      processes: Number of processes that read.
      on_progress: Called after each shard with its size in bytes.

    Returns:
      Every problem as one line that begins with the shard's name; damaged records by index and
      offset in bytes.

    Raises:
      UserError: the manifest has no split of that name.
      JobError: a shard could not be read.
    """
    folder = open_folder(path)
    chosen = [manifest.split(name) for name in splits] or manifest.splits
    shards = [shard for split in chosen for shard in split.shards]
    by_content = {
        _content(shard): shard.name for split in manifest.splits for shard in split.shards
    }
    found: dict[str, ShardCheck] = {}
    counted = any(split.label_counts for split in chosen)
    check_shard = partial(_check_shard, folder, by_content, manifest.features, counted)
    checks = run_pool(check_shard, shards, processes=processes)
    with closing(checks):
        for shard, check in checks:
            found[shard.name] = check
            on_progress(check.bytes)
    problems = (
        *(f"{shard.name}: {text}" for shard in shards for text in found[shard.name].problems),
        *_label_problems(chosen, found),
        *_foreign_shards(folder, manifest),
        *_quarantine_problems(folder, manifest),
    )
    records = sum(check.records for check in found.values())
    num_bytes = sum(check.bytes for check in found.values())
    return Verification(len(shards), records, num_bytes, problems)


def _content(shard: ShardInfo) -> tuple[int, int, int]:
    return shard.bytes, shard.crc32c, shard.fingerprint


def _label_problems(splits: Sequence[Split], found: Mapping[str, ShardCheck]) -> Iterator[str]:
    """Yield the first difference between each split's label_counts and the labels of its records.

    Damage that has been reported already explains a difference, so a split with any is left out.
    """
    for split in splits:
        checks = [found[shard.name] for shard in split.shards]
        if not split.label_counts or any(check.problems for check in checks):
            continue
        total = Counter[int]()
        for check in checks:
            if check.labels is None:
                yield (
                    f"{MANIFEST_NAME}: split '{split.name}' has label_counts, but records of "
                    f"{check.name} have no single label: {_REMEDY_MANIFEST}"
                )
                break
            total.update(check.labels)
        else:
            yield from _count_problem(split, total)


def _count_problem(split: Split, total: Mapping[int, int]) -> Iterator[str]:
    stated = dict(enumerate(split.label_counts))
    for label in sorted({*stated, *total}):
        if stated.get(label, 0) != total.get(label, 0):
            yield (
                f"{MANIFEST_NAME}: label_counts of split '{split.name}' state "
                f"{stated.get(label, 0):,} records of label {label}, its shards hold "
                f"{total.get(label, 0):,}: {_REMEDY_MANIFEST}"
            )
            return


def _foreign_shards(folder: Folder, manifest: Manifest) -> Iterator[str]:
    """Yield a problem for every shard in the folder that the manifest does not name."""
    known = {shard.name for split in manifest.splits for shard in split.shards}
    for name in sorted(folder.sizes()):
        if parse_shard_name(name) and name not in known:
            yield f"{name}: it is not part of this data set (the manifest does not name it)"


def _quarantine_problems(folder: Folder, manifest: Manifest) -> Iterator[str]:
    """Yield a problem if the list of left-out records has another length than stated."""
    listed = (folder.read(QUARANTINE_NAME) or b"").count(b"\n")
    if listed != manifest.quarantined:
        yield (
            f"{QUARANTINE_NAME}: it lists {listed:,} records, the manifest says "
            f"{manifest.quarantined:,}: {_REMEDY_MANIFEST}"
        )


def _check_shard(
    folder: Folder,
    by_content: Mapping[tuple[int, int, int], str],
    features: Sequence[Feature],
    counted: bool,
    shard: ShardInfo,
    note: Callable[[int], None],
) -> ShardCheck:
    """Read one shard and compare it with `shard`; runs in the processes of the pool.

    `by_content` names each shard of the manifest by its content, to recognise swapped files.
    The first record must have the manifest's `features`. Labels are counted if `counted`.
    """
    del note
    try:
        file = _open(folder, shard.name)
    except OSError as error:
        raise JobError(f"{folder.path}/{shard.name} could not be read: {error}") from error
    if file is None:
        return ShardCheck(shard.name, 0, 0, (f"it is missing: {_REMEDY}",))
    with file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        reader = _ShardReader(file, size, Counter() if counted else None)
        reader.run()
    problems = tuple(_compare(shard, reader, by_content))
    if not problems and reader.first and (difference := example_problem(reader.first, features)):
        problems = (f"record 0 {difference}, unlike the {MANIFEST_NAME}: {_REMEDY_MANIFEST}",)
    return ShardCheck(shard.name, reader.records, size, problems, reader.labels)


def _open(folder: Folder, name: str) -> BinaryIO | None:
    """Open a shard, or return None if it is missing; a remote shard is read into memory."""
    if isinstance(folder, LocalFolder):
        try:
            return open(os.path.join(folder.path, name), "rb")
        except FileNotFoundError:
            return None
    data = folder.read(name)
    return None if data is None else io.BytesIO(data)


class _ShardReader:
    """One pass over a shard's file: sums as in the manifest, and problems in their order."""

    def __init__(self, file: BinaryIO, size: int, labels: Counter[int] | None) -> None:
        """Read `file` of `size` bytes; count the records' labels in `labels`, if any."""
        self._file = file
        self.size = size
        self.labels = labels
        self.records = self.crc32c = self.fingerprint = 0
        self.problems: list[str] = []
        self.damaged = 0
        self.first = b""

    def run(self) -> None:
        """Read to the end of the file.

        After a damaged header the next record cannot be found; the rest counts for the
        checksum of the file only.
        """
        try:
            for frame in read_frames(self._read_next, self.size):
                self.first = self.first or frame.payload
                self.records += 1
                self.fingerprint = (self.fingerprint + fingerprint64(frame.payload)) % 2**64
                if error := frame.damage():
                    self._add(error)
                else:
                    self._count_label(frame.payload)
        except RecordError as error:
            self._add(error)
            while self._read_next(0, 1 << 20):
                pass

    def _count_label(self, payload: bytes) -> None:
        if self.labels is None:
            return
        try:
            self.labels[label_of(payload)] += 1
        except ValueError:  # no Example, no label or several
            self.labels = None

    def _read_next(self, offset: int, length: int) -> bytes:
        """Read on; frames follow one another without a gap, so `offset` is where the file is."""
        del offset
        data = self._file.read(length)
        self.crc32c = extend_crc32c(self.crc32c, data)
        return data

    def _add(self, error: RecordError) -> None:
        self.damaged += 1
        if self.damaged <= MAX_LISTED:
            self.problems.append(str(error))


def _compare(
    shard: ShardInfo, reader: _ShardReader, by_content: Mapping[tuple[int, int, int], str]
) -> Iterator[str]:
    """Yield the differences between the file of a shard and its entry in the manifest."""
    found = (reader.size, reader.crc32c, reader.fingerprint)
    if found == _content(shard) and reader.records == shard.records and not reader.problems:
        return
    if found != _content(shard) and found in by_content:
        yield (
            f"it holds the content of {by_content[found]}: the two files were swapped, or one "
            "was copied over the other"
        )
        return
    yield from reader.problems
    if reader.damaged > MAX_LISTED:
        yield f"{reader.damaged - MAX_LISTED:,} more damaged records"
    if reader.size != shard.bytes:
        yield f"it has {reader.size:,} bytes, the manifest says {shard.bytes:,}: {_REMEDY}"
    elif reader.records != shard.records and not reader.problems:
        yield f"it has {reader.records:,} records, the manifest says {shard.records:,}: {_REMEDY}"
    elif not reader.problems:
        yield f"its records are sound, but not those of the manifest (CRC32C): {_REMEDY}"


def damaged_shards(problems: Sequence[str]) -> int:
    """Return the number of shards that `problems` name."""
    names = {problem.split(":", 1)[0] for problem in problems}
    return len([name for name in names if parse_shard_name(name)])
