"""The payloads of local shards in memory: the path of small records that TensorFlow parses.

Moving a record of 200 bytes through TensorFlow's interleaves and its shuffle buffer takes longer
than parsing it. Here record ids pass through the shuffled order, and payloads are cut out of the
shards, which are read and checked whole.
"""

import threading
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from tenfold.data.format.manifest import ShardInfo
from tenfold.data.format.tfrecord import FOOTER_BYTES, FRAME_BYTES, HEADER_BYTES, crc32c
from tenfold.data.reading.records.shard_index import INDEX_BITS, ShardIndex

_INDEX_MASK: Final = (1 << INDEX_BITS) - 1
_LENGTH_BYTES: Final = 8


class PayloadTable:
    """The records of shards, which are read when a record of them is asked for. Safe for threads.

    Args:
      shards: path and entry of the manifest of each shard.
      index: numbers the shards, and reads single records of shards that are damaged.
    """

    def __init__(self, shards: Sequence[tuple[str, ShardInfo]], index: ShardIndex) -> None:
        self._index = index
        self._shards = {
            index.first_record_id(path) >> INDEX_BITS: _PayloadShard(path, shard)
            for path, shard in shards
        }

    def read(self, record_ids: np.ndarray) -> np.ndarray:
        """Return the payloads of records, bytes [n]; NO_RECORD has an empty one.

        Raises:
          UnreadableRecord: a record is damaged; the message names it.
        """
        numbers = record_ids >> INDEX_BITS  # NO_RECORD has the number -1
        payloads = np.full(len(record_ids), b"", object)
        for number in np.unique(numbers[record_ids >= 0]).tolist():
            places = np.flatnonzero(numbers == number)
            shard = self._shards[number]
            shard.load()
            if shard.is_sound:
                payloads[places] = shard.payloads(record_ids[places] & _INDEX_MASK)
            else:
                found = self._index.read(record_ids[places].tolist())
                payloads[places] = [payload.tobytes() for payload in found]
        return payloads


class _PayloadShard:
    """One shard: its bytes, and where its records begin, once it is loaded.

    The fields are written with the lock held, `_loaded` last.
    """

    def __init__(self, path: str, info: ShardInfo) -> None:
        self.is_sound = False
        self._path = path
        self._info = info
        self._lock = threading.Lock()
        self._loaded = False
        self._data = b""
        self._offsets = np.zeros(0, np.int64)

    def load(self) -> None:
        """Read the shard, if it is not here yet; it is not sound if it differs from the manifest.

        Then single records of it are read, and the damaged one is named.
        """
        if self._loaded:
            return
        with self._lock:
            if self._loaded:
                return
            try:
                with open(self._path, "rb") as file:
                    data = file.read()
            except OSError:
                data = b""
            if len(data) == self._info.bytes and crc32c(data) == self._info.crc32c:
                self._offsets = _frame_offsets(data, self._info.records)
                self._data = data
                self.is_sound = True
            self._loaded = True

    def payloads(self, indices: np.ndarray) -> list[Any]:
        """Return the payloads of the records at `indices`."""
        data = self._data
        begins = (self._offsets[indices] + HEADER_BYTES).tolist()
        ends = (self._offsets[indices + 1] - FOOTER_BYTES).tolist()
        return [data[begin:end] for begin, end in zip(begins, ends, strict=True)]


def _frame_offsets(data: bytes, records: int) -> np.ndarray:
    """Return where each of the frames of a whole shard begins, and the end, int64 [records + 1].

    The lengths are not checked: the checksum of the whole shard is that of the manifest.
    """
    offsets = [0]
    for _ in range(records):
        begin = offsets[-1]
        length = int.from_bytes(data[begin : begin + _LENGTH_BYTES], "little")
        offsets.append(begin + FRAME_BYTES + length)
    return np.array(offsets, np.int64)
