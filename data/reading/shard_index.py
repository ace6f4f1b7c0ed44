"""Records of shards read one by one, from wherever in a shard they are.

A shard's records lie behind one another without an index; where each begins is found by going
over their headers (see `records`), as far as is asked for, once a process. A record's place is
one number, made of the shard's number and its index in the shard.
"""

import contextlib
import os
import threading
from array import array
from collections.abc import Mapping, Sequence
from typing import Any, Final

from tenfold.data.format.tfrecord import (
    FOOTER_BYTES,
    FRAME_BYTES,
    HEADER_BYTES,
    RecordError,
    masked_crc32c,
    read_length,
)
from tenfold.data.reading.decoding.buffers import ThreadBuffer

# A place's low bits are the record's index, the rest the shard's number; no record's is negative.
INDEX_BITS: Final = 40
NO_RECORD: Final = -1
_INDEX: Final = (1 << INDEX_BITS) - 1

# What is told to the disk to be wanted soon, as the headers are gone over.
_AHEAD_BYTES: Final = 1 << 20
# What a process has open besides its shards, generously.
_OTHER_FILES: Final = 512


class IndexedShard:
    """One open shard of `size` bytes; its records can be read by several threads at once.

    Raises:
      OSError: it cannot be opened.
      ValueError: its size is another.
    """

    def __init__(self, path: str, size: int) -> None:
        self._file = os.open(path, os.O_RDONLY)
        self._size = os.fstat(self._file).st_size
        if self._size != size:
            raise ValueError(f"{path} has {self._size:,} bytes, the manifest says {size:,}")
        self._lock = threading.Lock()
        # Where the records begin that have been gone over, and the end of the last; their CRCs.
        self._offsets = array("q", [0])
        self._crcs = array("I")
        self._header = os.pread(self._file, HEADER_BYTES, 0)
        self._asked = 0

    def __del__(self) -> None:
        with contextlib.suppress(OSError, AttributeError):
            os.close(self._file)

    def offset(self, index: int) -> int:
        """Returns where a record begins that has been read."""
        return self._offsets[index]

    def length(self, index: int) -> int:
        """Returns the bytes of a record's payload, after going over the headers up to it.

        Raises:
          RecordError: the header of the record, or of one before it, is damaged.
        """
        if index >= len(self._crcs):
            with self._lock:
                while index >= len(self._crcs):
                    self._next()
        return self._offsets[index + 1] - self._offsets[index] - FRAME_BYTES

    def read_into(self, index: int, memory: Any) -> None:
        """Reads the payload of a record into `memory`, uint8 [`length`], and checks it.

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

    def _next(self) -> None:
        """Goes over one record more: its footer and the next one's header are read at once."""
        index, offset = len(self._crcs), self._offsets[-1]
        if offset >= self._size:
            raise RecordError(index, offset, "the file ends before it")
        room = self._size - offset - HEADER_BYTES
        length = read_length(self._header, index=index, offset=offset, room=room)
        self._want(offset + length)
        footer = offset + HEADER_BYTES + length
        found = os.pread(self._file, FOOTER_BYTES + HEADER_BYTES, footer)
        if len(found) < FOOTER_BYTES:
            raise RecordError(index, offset, "the file is shorter than it was")
        self._header = found[FOOTER_BYTES:]
        self._offsets.append(footer + FOOTER_BYTES)
        self._crcs.append(int.from_bytes(found[:FOOTER_BYTES], "little"))

    def _want(self, offset: int) -> None:
        """Has the disk read on in sequence: what is asked for is scattered by shuffling."""
        if offset < self._asked or not hasattr(os, "posix_fadvise"):
            return
        with contextlib.suppress(OSError):
            os.posix_fadvise(self._file, offset, _AHEAD_BYTES, os.POSIX_FADV_WILLNEED)
        self._asked = offset + _AHEAD_BYTES // 2


class ShardIndex:
    """Local shards, by path and size in bytes; each is opened when a record of it is read."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self._paths = tuple(sizes)
        self._sizes = dict(sizes)
        self._files: dict[int, IndexedShard] = {}
        self._lock = threading.Lock()
        self._payloads = ThreadBuffer()
        _allow_open_files(len(self._paths))

    def first_record_id(self, path: str) -> int:
        """Returns the place of a shard's first record."""
        return self._paths.index(path) << INDEX_BITS

    def read(self, places: Sequence[int]) -> list[Any]:
        """Returns the payloads of the records at `places`, uint8 [bytes] each; what is no place
        has none.

        They lie in memory that this thread's next call uses again.

        Raises:
          ValueError: one is damaged; the message names its shard, index and offset.
        """
        place = NO_RECORD
        try:
            lengths = []
            for place in places:
                lengths.append(self._file(place).length(place & _INDEX) if place >= 0 else 0)
            memory = self._payloads.of(sum(lengths))
            found, begin = [], 0
            for place, length in zip(places, lengths, strict=True):
                payload = memory[begin : begin + length]
                if place >= 0:
                    self._file(place).read_into(place & _INDEX, payload)
                found.append(payload)
                begin += length
        except RecordError as error:
            raise ValueError(f"{self._path(place)} {error}") from error
        except OSError as error:
            raise ValueError(f"{self._path(place)} cannot be read: {error.strerror}") from error
        return found

    def describe(self, place: int) -> str:
        """Returns the shard, index and offset of a record that has been read."""
        index = place & _INDEX
        return f"{self._path(place)} record {index} at byte {self._file(place).offset(index):,}"

    def _path(self, place: int) -> str:
        return self._paths[place >> INDEX_BITS]

    def _file(self, place: int) -> IndexedShard:
        number = place >> INDEX_BITS
        file = self._files.get(number)
        if file is None:
            with self._lock:
                path = self._paths[number]
                file = self._files.get(number) or IndexedShard(path, self._sizes[path])
                self._files[number] = file
        return file


def _allow_open_files(more: int) -> None:
    """Raises the limit of open files as far as needed and allowed."""
    try:
        import resource
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = more + _OTHER_FILES
    if resource.RLIM_INFINITY != soft < needed:
        most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
