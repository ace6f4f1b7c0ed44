"""The numbers of local shards in memory: each record is read, checked and decoded once.

Small records are read from disk in the order of their shards, many at a time, because reading and
checking each by itself costs more than anything else that is done to it. The values, which take
less memory than the records, stay: later epochs read nothing.
"""

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from tenfold.data.format.manifest import Feature, ShardInfo
from tenfold.data.format.tfrecord import (
    FOOTER_BYTES,
    FRAME_BYTES,
    HEADER_BYTES,
    RecordError,
    crc32c,
    fingerprint64,
    frame_header,
    mask_crc32c,
    read_length,
)
from tenfold.data.reading.records.number_layout import DTYPES, NumberDecoder, fixed_shape
from tenfold.data.reading.records.shard_index import (
    INDEX_BITS,
    NO_RECORD,
    ShardIndex,
    UnreadableRecord,
)

# Read, checked and decoded at once; the CPU cache holds it.
_BLOCK_BYTES: Final = 1 << 18
_INDEX_MASK: Final = (1 << INDEX_BITS) - 1

# Takes payloads, and returns the values of each feature, [n, *shape]; raises ValueError.
Parse = Callable[[Sequence[bytes]], Mapping[str, np.ndarray]]


class NumberTable:
    """The records of shards as arrays, filled as they are asked for. Safe for threads.

    Args:
      shards: path and entry of the manifest of each shard that may stay in memory.
      index: numbers the shards.
      features: the features, numbers of fixed shapes.
      parse: parses what `NumberDecoder` does not decode.
    """

    def __init__(
        self,
        shards: Sequence[tuple[str, ShardInfo]],
        index: ShardIndex,
        features: Sequence[Feature],
        parse: Parse,
    ) -> None:
        self._decoder = NumberDecoder(features)
        self._parse = parse
        total = sum(shard.records for _, shard in shards)
        # Untouched pages of these arrays take no memory.
        self.values = {f.name: np.empty(fixed_shape(f, total), DTYPES[f.kind]) for f in features}
        self.fingerprints = np.empty(total, np.int64)
        self._shards: dict[int, _Shard] = {}
        # Where the rows of each shard begin, by its number in `index`; -1 if it is not here.
        numbers = [index.first_record_id(path) >> INDEX_BITS for path, _ in shards]
        self._begins = np.full(index.num_shards, -1, np.int64)
        row = 0
        for number, (path, shard) in zip(numbers, shards, strict=True):
            self._begins[number] = row
            self._shards[number] = _Shard(number, path, shard, row)
            row += shard.records
        # Shards with records that are not read yet, or are damaged; only ever shrinks.
        self._unfinished = set(self._shards)

    def rows(self, record_ids: np.ndarray) -> np.ndarray:
        """Return the row of each record, int64 [n], after reading what is missing.

        A record of a shard that is not here, and NO_RECORD, has -1.

        Raises:
          UnreadableRecord: a record is damaged; the message names it.
        """
        numbers = record_ids >> INDEX_BITS  # NO_RECORD has the number -1
        begins = np.where(record_ids == NO_RECORD, -1, self._begins[numbers])
        indices = record_ids & _INDEX_MASK
        here = begins >= 0
        if not self._unfinished:
            return np.where(here, begins + indices, -1)
        for number in np.unique(numbers[here]).tolist():
            shard = self._shards[number]
            wanted = indices[here & (numbers == number)]
            if shard.loaded <= int(wanted.max()):
                self._load(shard, int(wanted.max()))
            if shard.damaged:
                for index in wanted.tolist():
                    if index in shard.damaged:
                        raise UnreadableRecord(f"{shard.path} {shard.damaged[index]}")
        return np.where(here, begins + indices, -1)

    def _load(self, shard: "_Shard", index: int) -> None:
        """Read a shard up to record `index`.

        Raises:
          UnreadableRecord: the header of the record, or of one before it, is damaged.
        """
        with shard.lock:
            try:
                while shard.loaded <= index:
                    self._load_block(shard)
            except RecordError as error:
                raise UnreadableRecord(f"{shard.path} {error}") from error
            except OSError as error:
                raise UnreadableRecord(f"{shard.path} cannot be read: {error.strerror}") from error

    def _load_block(self, shard: "_Shard") -> None:
        data, offsets = shard.read_block()
        count = len(offsets) - 1
        begins = offsets[:-1] - offsets[0] + HEADER_BYTES
        lengths = np.diff(offsets) - FRAME_BYTES
        ends = begins + lengths
        bounds = zip(begins.tolist(), ends.tolist(), strict=True)
        payloads = [data[begin:end] for begin, end in bounds]
        whole = np.frombuffer(data, np.uint8)
        stored = whole[ends[:, None] + np.arange(FOOTER_BYTES)].view("<u4")[:, 0]
        found = mask_crc32c(np.fromiter(map(crc32c, payloads), np.uint32, count))
        for index in np.flatnonzero(stored != found).tolist():
            problem = f"the checksum of its {lengths[index]:,} bytes does not match"
            shard.damage(shard.loaded + index, int(offsets[index]), problem)
        rows = slice(shard.row + shard.loaded, shard.row + shard.loaded + count)
        out = {name: values[rows] for name, values in self.values.items()}
        prints = np.fromiter(map(fingerprint64, payloads), np.uint64, count)
        self.fingerprints[rows] = prints.view(np.int64)
        left = self._decoder.decode(whole, begins, lengths, out)
        left = left[stored[left] == found[left]]
        self._parse_rest(shard, left, [payloads[index] for index in left.tolist()], offsets, out)
        # Other threads read the rows below `loaded` without the lock.
        shard.loaded += count
        if shard.loaded == shard.records and not shard.damaged:
            self._unfinished.discard(shard.number)

    def _parse_rest(
        self,
        shard: "_Shard",
        left: np.ndarray,
        payloads: Sequence[bytes],
        offsets: np.ndarray,
        out: Mapping[str, np.ndarray],
    ) -> None:
        if not payloads:
            return
        try:
            for name, values in self._parse(payloads).items():
                out[name][left] = values
        except ValueError as error:
            if len(payloads) == 1:
                index = int(left[0])
                problem = f"cannot be parsed: {error}"
                shard.damage(shard.loaded + index, int(offsets[index]), problem, colon="")
                return
            for index, payload in zip(left, payloads, strict=True):
                self._parse_rest(shard, np.array([index]), [payload], offsets, out)


class _Shard:
    """One shard of the table: how much of it is read, and its damaged records.

    `loaded` and `damaged` are written with `lock` held; `loaded` grows after the rows are there.
    """

    def __init__(self, number: int, path: str, info: ShardInfo, row: int) -> None:
        self.number = number
        self.path = path
        self.records = info.records
        self.row = row
        self.loaded = 0
        self.damaged: dict[int, str] = {}
        self.lock = threading.Lock()
        self._info = info
        self._offset = 0

    def damage(self, index: int, offset: int, problem: str, colon: str = ":") -> None:
        """Note a damaged record."""
        self.damaged[index] = f"record {index} at byte {offset:,}{colon} {problem}"

    def read_block(self) -> tuple[bytes, np.ndarray]:
        """Read about _BLOCK_BYTES of whole frames, at least one.

        Returns:
          The bytes, and the offsets in the file of the frames and of the end of the last.

        Raises:
          RecordError: the header of the first frame is damaged, or the file ends.
          OSError: it cannot be read.
        """
        size = self._info.bytes
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            found = os.fstat(descriptor).st_size
            if found != size:
                raise UnreadableRecord(
                    f"{self.path} has {found:,} bytes, the manifest says {size:,}"
                )
            data = os.pread(descriptor, min(_BLOCK_BYTES, size - self._offset), self._offset)
            length = self._first_length(data)
            if length + FRAME_BYTES > len(data):
                data = os.pread(descriptor, length + FRAME_BYTES, self._offset)
        finally:
            os.close(descriptor)
        ends = self._frame_ends(data)
        if not ends:
            raise RecordError(self.loaded, self._offset, "the file is shorter than it was")
        offsets = np.array([0, *ends], np.int64) + self._offset
        self._offset = int(offsets[-1])
        return data[: ends[-1]], offsets

    def _first_length(self, data: bytes) -> int:
        if self._offset >= self._info.bytes:
            raise RecordError(self.loaded, self._offset, "the file ends before it")
        room = self._info.bytes - self._offset - HEADER_BYTES
        return read_length(data[:HEADER_BYTES], index=self.loaded, offset=self._offset, room=room)

    def _frame_ends(self, data: bytes) -> list[int]:
        """Return the ends of the whole frames at the beginning of `data` with sound headers."""
        headers: dict[bytes, int] = {}
        ends: list[int] = []
        position, size = 0, len(data)
        most = self._info.records - self.loaded
        while position + FRAME_BYTES <= size and len(ends) < most:
            header = data[position : position + HEADER_BYTES]
            length = headers.get(header)
            if length is None:
                length = int.from_bytes(header[:8], "little")
                if header != frame_header(length):
                    break  # the next block begins here, and names it
                headers[header] = length
            position += length + FRAME_BYTES
            if position > size:
                break
            ends.append(position)
        return ends


def resident_shards(
    shards: Sequence[tuple[str, ShardInfo]], features: Sequence[Feature], max_bytes: int
) -> list[tuple[str, ShardInfo]]:
    """Return those of `shards` whose values fit into `max_bytes` together, the first ones."""
    row_bytes = 8  # the fingerprint
    for feature in features:
        size = int(np.prod([size or 0 for size in feature.shape], dtype=np.int64))
        row_bytes += size * np.dtype(DTYPES[feature.kind]).itemsize
    chosen: list[tuple[str, ShardInfo]] = []
    for path, shard in shards:
        max_bytes -= shard.records * row_bytes
        if max_bytes < 0:
            break
        chosen.append((path, shard))
    return chosen


def are_numbers(features: Sequence[Any]) -> bool:
    """Whether all features are numbers of fixed shapes that every record has.

    Features without a value do not count: tf.data's `unbatch` crashes on empty tensors.
    """
    return bool(features) and all(
        feature.kind in DTYPES
        and not {0, None} & {*feature.shape}
        and not feature.optional
        and not feature.sequence
        for feature in features
    )
