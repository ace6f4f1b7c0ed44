"""Reading every byte of a data set and comparing it with the manifest."""

import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO, Final

from tenfold.data.errors import JobError
from tenfold.data.format.manifest import Manifest, ShardInfo, parse_shard_name
from tenfold.data.format.tfrecord import RecordError, extend_crc32c, fingerprint64, read_frames
from tenfold.data.runtime.process_pool import run_pool
from tenfold.data.storage.folder import Folder
from tenfold.data.storage.local_folder import LocalFolder
from tenfold.data.storage.open_folder import open_folder

# Problems of one shard beyond this many are counted, not listed.
MAX_LISTED: Final = 20
_REMEDY: Final = "remove the shard and run the same 'tenfold write' again"


@dataclass(frozen=True)
class ShardCheck:
    """What stands in one shard's file, and what is wrong with it."""

    name: str
    records: int
    bytes: int
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Verification:
    """What `verify_shards` found: records and bytes read, and every problem as one line."""

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
    """Reads the shards at `path` (of `splits`, or all) and compares them with `manifest`.

    Returns every problem, with the record's index and offset in bytes where there is one.
    `on_progress` takes the bytes of each shard that was read.
    """
    folder = open_folder(path)
    chosen = [manifest.split(name) for name in splits] or manifest.splits
    shards = [shard for split in chosen for shard in split.shards]
    by_content = {
        _content(shard): shard.name for split in manifest.splits for shard in split.shards
    }
    problems: dict[str, tuple[str, ...]] = {shard.name: () for shard in shards}
    records = num_bytes = 0
    checks = run_pool(partial(_check, folder, by_content), shards, processes=processes)
    with closing(checks):
        for shard, check in checks:
            problems[shard.name] = check.problems
            records += check.records
            num_bytes += check.bytes
            on_progress(check.bytes)
    listed = [f"{name}: {problem}" for name, found in problems.items() for problem in found]
    return Verification(len(shards), records, num_bytes, (*listed, *_foreign(folder, manifest)))


def _content(shard: ShardInfo) -> tuple[int, int, int]:
    return shard.bytes, shard.crc32c, shard.fingerprint


def _foreign(folder: Folder, manifest: Manifest) -> Iterator[str]:
    """Yields a problem for every shard in the folder that the manifest does not name."""
    known = {shard.name for split in manifest.splits for shard in split.shards}
    for name in sorted(folder.sizes()):
        if parse_shard_name(name) and name not in known:
            yield f"{name}: it is no part of this data set (the manifest does not name it)"


def _check(
    folder: Folder,
    by_content: Mapping[tuple[int, int, int], str],
    shard: ShardInfo,
    note: Callable[[int], None],
) -> ShardCheck:
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
        reading = _ShardReader(file, size)
        reading.run()
    return ShardCheck(
        shard.name, reading.records, size, tuple(_compare(shard, reading, by_content))
    )


def _open(folder: Folder, name: str) -> BinaryIO | None:
    """Opens a shard; a remote one is fetched whole."""
    if isinstance(folder, LocalFolder):
        try:
            return open(os.path.join(folder.path, name), "rb")
        except FileNotFoundError:
            return None
    data = folder.read(name)
    return None if data is None else io.BytesIO(data)


class _ShardReader:
    """One pass over a shard's file: sums as in the manifest, and problems in their order."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self.size = size
        self.records = self.crc32c = self.fingerprint = 0
        self.problems: list[str] = []
        self.damaged = 0

    def run(self) -> None:
        """Read to the end of the file.

        After a damaged header the next record cannot be found; the rest counts for the
        checksum of the file only.
        """
        try:
            for frame in read_frames(self._read_next, self.size):
                self.records += 1
                self.fingerprint = (self.fingerprint + fingerprint64(frame.payload)) % 2**64
                if error := frame.damage():
                    self._add(error)
        except RecordError as error:
            self._add(error)
            while self._read_next(0, 1 << 20):
                pass

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
    shard: ShardInfo, reading: _ShardReader, by_content: Mapping[tuple[int, int, int], str]
) -> Iterator[str]:
    """Yields what differs between a shard's file and the manifest."""
    found = (reading.size, reading.crc32c, reading.fingerprint)
    if found == _content(shard) and reading.records == shard.records and not reading.problems:
        return
    if found != _content(shard) and found in by_content:
        yield f"it holds what should be {by_content[found]}: the two were swapped, or one copied"
        return
    yield from reading.problems
    if reading.damaged > MAX_LISTED:
        yield f"{reading.damaged - MAX_LISTED:,} more damaged records"
    if reading.size != shard.bytes:
        yield f"it has {reading.size:,} bytes, the manifest says {shard.bytes:,}: {_REMEDY}"
    elif reading.records != shard.records and not reading.problems:
        yield f"it has {reading.records:,} records, the manifest says {shard.records:,}"
    elif not reading.problems:
        yield f"its records are sound, but not those of the manifest (CRC32C): {_REMEDY}"


def damaged_shards(problems: Sequence[str]) -> int:
    """Returns how many shards `problems` speak of."""
    return len({problem.split(":", 1)[0] for problem in problems})
