"""Random access to the records of local shards, by record id.

TFRecord has no index. Offsets are discovered lazily by scanning frame headers (see
`format.tfrecord`), once per process. A record id is one int64:

    bits 40-62  number of the shard in the index
    bits 0-39   index of the record in the shard
"""

import contextlib
import os
import threading
from array import array
from collections.abc import Mapping, Sequence
from typing import Any, Final

from tenfold.data.errors import JobError
from tenfold.data.format.tfrecord import (
    FOOTER_BYTES,
    FRAME_BYTES,
    HEADER_BYTES,
    RecordError,
    masked_crc32c,
    read_length,
)
from tenfold.data.reading.decoding.buffers import ThreadBuffer

INDEX_BITS: Final = 40
NO_RECORD: Final = -1
_INDEX_MASK: Final = (1 << INDEX_BITS) - 1

# Bytes that the disk is asked to read ahead while headers are scanned.
_READ_AHEAD_BYTES: Final = 1 << 20
# A generous allowance for files that the process has open besides its shards.
_OTHER_FILES: Final = 512


def split_record_id(record_id: int) -> tuple[int, int]:
    """Return the number of the shard in the index, and the index of the record in the shard."""
    return record_id >> INDEX_BITS, record_id & _INDEX_MASK


class UnreadableRecord(JobError, ValueError):
    """A record is damaged or cannot be decoded; the message names its shard, index and offset.

    It is a ValueError too, which TensorFlow turns into an InvalidArgumentError.
    """


class UnnamedRecord(UnreadableRecord):
    """A record is damaged or cannot be decoded; the message has the reason only."""


class IndexedShard:
    """One open shard, whose records several threads may read at the same time.

    Args:
      path: the shard's path.
      num_bytes: its size by the manifest.

    Raises:
      OSError: it cannot be opened.
      ValueError: it has another size.
    """

    def __init__(self, path: str, num_bytes: int) -> None:
        self._file = os.open(path, os.O_RDONLY)
        self._size = os.fstat(self._file).st_size
        if self._size != num_bytes:
            raise ValueError(f"{path} has {self._size:,} bytes, the manifest says {num_bytes:,}")
        # Held while headers are scanned. Both arrays only grow: reading an entry needs no lock.
        self._lock = threading.Lock()
        # Offsets of the scanned records, and the end of the last one; their payloads' CRCs.
        self._offsets = array("q", [0])
        self._crcs = array("I")
        self._header = os.pread(self._file, HEADER_BYTES, 0)
        self._advised = 0

    def __del__(self) -> None:
        with contextlib.suppress(OSError, AttributeError):
            os.close(self._file)

    def offset(self, index: int) -> int:
        """Return the offset of a record that has been read."""
        return self._offsets[index]

    def length(self, index: int) -> int:
        """Return the bytes of a record's payload, after scanning the headers up to it.

        Raises:
          RecordError: the header of the record, or of an earlier one, is damaged.
        """
        if index >= len(self._crcs):
            with self._lock:
                while index >= len(self._crcs):
                    self._scan_next()
        return self._offsets[index + 1] - self._offsets[index] - FRAME_BYTES

    def read_into(self, index: int, memory: Any) -> None:
        """Read the payload of a record into `memory`, uint8 [`length`], and check it.

        Raises:
          RecordError: it is damaged, or the file ends before its end.
        """
        offset, length = self._offsets[index], len(memory)
        if os.preadv(self._file, [memory], offset + HEADER_BYTES) < length:
            raise RecordError(index, offset, "the file is shorter than it was")
        if masked_crc32c(memory) != self._crcs[index]:
            raise RecordError(
                index, offset, f"the checksum of its {length:,} bytes does not match"
            )

    def _scan_next(self) -> None:
        """Scan one more record: one read takes its footer and the next record's header."""
        index, offset = len(self._crcs), self._offsets[-1]
        if offset >= self._size:
            raise RecordError(index, offset, "the file ends before it")
        room = self._size - offset - HEADER_BYTES
        length = read_length(self._header, index=index, offset=offset, room=room)
        self._advise(offset + length)
        footer = offset + HEADER_BYTES + length
        data = os.pread(self._file, FOOTER_BYTES + HEADER_BYTES, footer)
        if len(data) < FOOTER_BYTES:
            raise RecordError(index, offset, "the file is shorter than it was")
        self._header = data[FOOTER_BYTES:]
        # `length` reads the offset of a record's end, so the CRC, which announces it, comes last.
        self._offsets.append(footer + FOOTER_BYTES)
        self._crcs.append(int.from_bytes(data[:FOOTER_BYTES], "little"))

    def _advise(self, offset: int) -> None:
        """Ask the disk to read on in sequence, because shuffled reads are scattered."""
        if offset < self._advised or not hasattr(os, "posix_fadvise"):
            return
        with contextlib.suppress(OSError):
            os.posix_fadvise(self._file, offset, _READ_AHEAD_BYTES, os.POSIX_FADV_WILLNEED)
        self._advised = offset + _READ_AHEAD_BYTES // 2


class ShardIndex:
    """Local shards, by path and size in bytes; each is opened when a record of it is read."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self._paths = tuple(sizes)
        self._numbers = {path: number for number, path in enumerate(self._paths)}
        self._sizes = dict(sizes)
        self._files: dict[int, IndexedShard] = {}
        self._lock = threading.Lock()  # held while a shard is opened
        self._payloads = ThreadBuffer()
        _allow_open_files(len(self._paths))

    @property
    def num_shards(self) -> int:
        """The number of shards."""
        return len(self._paths)

    def first_record_id(self, path: str) -> int:
        """Return the id of a shard's first record; the next records' ids follow it."""
        return self._numbers[path] << INDEX_BITS

    def read(self, record_ids: Sequence[int]) -> list[Any]:
        """Return the payloads of records, uint8 [bytes] each; NO_RECORD has an empty one.

        They lie in memory that is valid until the thread's next call.

        Raises:
          UnreadableRecord: a record is damaged.
        """
        record_id = NO_RECORD
        try:
            lengths = []
            for record_id in record_ids:
                lengths.append(self._length(record_id) if record_id >= 0 else 0)
            memory = self._payloads.get(sum(lengths))
            payloads, begin = [], 0
            for record_id, length in zip(record_ids, lengths, strict=True):
                payload = memory[begin : begin + length]
                if record_id >= 0:
                    self._file(record_id).read_into(record_id & _INDEX_MASK, payload)
                payloads.append(payload)
                begin += length
        except RecordError as error:
            raise UnreadableRecord(f"{self._path(record_id)} {error}") from error
        except OSError as error:
            path, reason = self._path(record_id), error.strerror
            raise UnreadableRecord(f"{path} cannot be read: {reason}") from error
        except ValueError as error:
            raise UnreadableRecord(str(error)) from error
        return payloads

    def describe(self, record_id: int) -> str:
        """Return the shard, index and offset of a record that has been read."""
        index = record_id & _INDEX_MASK
        offset = self._file(record_id).offset(index)
        return f"{self._path(record_id)} record {index} at byte {offset:,}"

    def _length(self, record_id: int) -> int:
        return self._file(record_id).length(record_id & _INDEX_MASK)

    def _path(self, record_id: int) -> str:
        return self._paths[record_id >> INDEX_BITS]

    def _file(self, record_id: int) -> IndexedShard:
        number = record_id >> INDEX_BITS
        file = self._files.get(number)
        if file is None:
            with self._lock:
                path = self._paths[number]
                file = self._files.get(number) or IndexedShard(path, self._sizes[path])
                self._files[number] = file
        return file


def _allow_open_files(num_shards: int) -> None:
    """Raise the limit of open files as far as needed and allowed."""
    try:
        import resource
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = num_shards + _OTHER_FILES
    if resource.RLIM_INFINITY != soft < needed:
        allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, allowed), hard))
