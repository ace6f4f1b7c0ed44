"""TFRecord files: frames, checksums and fingerprints of records.

A frame (tensorflow/core/lib/io/record_writer.h), all numbers little-endian:

    8 bytes   length of the payload
    4 bytes   masked CRC32C of those 8 bytes
    length    payload
    4 bytes   masked CRC32C of the payload
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, TypeAlias

import farmhash
import google_crc32c

HEADER_BYTES: Final = 12
FOOTER_BYTES: Final = 4
FRAME_BYTES: Final = HEADER_BYTES + FOOTER_BYTES

_LENGTH: Final = struct.Struct("<Q")
_CRC: Final = struct.Struct("<I")
_HEADER: Final = struct.Struct("<QI")

crc32c = google_crc32c.value
extend_crc32c = google_crc32c.extend
fingerprint64 = farmhash.Fingerprint64

_ZEROS: Final = bytes(1 << 20)


def joined_crc32c(first: int, second: int, second_bytes: int) -> int:
    """Return the CRC32C of two parts together, from the CRC32C of each.

    A CRC is linear: the contribution of `first` is `first` extended by `second_bytes` zero
    bytes.

    Args:
      first: CRC32C of the first part.
      second: CRC32C of the second part.
      second_bytes: Length of the second part.
    """
    if not first:
        return second
    return second ^ _after_zeros(first, second_bytes) ^ _after_zeros(0, second_bytes)


def _after_zeros(crc: int, num_bytes: int) -> int:
    for begin in range(0, num_bytes, len(_ZEROS)):
        crc = extend_crc32c(crc, _ZEROS[: num_bytes - begin])
    return crc


def masked_crc32c(data: bytes) -> int:
    """Return the CRC32C of `data` (any buffer), masked as TFRecord stores it."""
    return int(mask_crc32c(google_crc32c.value(data)))


def mask_crc32c(crc: Any) -> Any:
    """Return a CRC32C, an int or a numpy array of uint32, masked as TFRecord stores it."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def frame_header(length: int) -> bytes:
    """Return the 12 bytes before a payload of `length` bytes."""
    packed = _LENGTH.pack(length)
    return packed + _CRC.pack(masked_crc32c(packed))


def frame_footer(payload: bytes) -> bytes:
    """Return the 4 bytes after a payload."""
    return _CRC.pack(masked_crc32c(payload))


def frame(payload: bytes) -> bytes:
    """Return `payload` as a framed record."""
    return frame_header(len(payload)) + payload + frame_footer(payload)


@dataclass
class RecordError(ValueError):
    """A damaged record: its index in the file, its offset in bytes, and the problem."""

    index: int
    offset: int
    problem: str

    def __str__(self) -> str:
        return f"record {self.index} at byte {self.offset:,}: {self.problem}"


def read_length(header: bytes, *, index: int, offset: int, room: int) -> int:
    """Return the payload length that a frame header holds.

    Args:
      header: The 12 bytes of the header.
      index: Index of the record in its file, for errors.
      offset: Offset of the frame in its file in bytes, for errors.
      room: Bytes of the file that follow the header.

    Raises:
      RecordError: the header is cut or damaged, or the record reaches past the file's end.
    """
    if len(header) < HEADER_BYTES:
        raise RecordError(index, offset, f"the file ends {len(header)} bytes into the header")
    length, crc = _HEADER.unpack(header)
    if crc != masked_crc32c(header[:8]):
        raise RecordError(index, offset, "the checksum of the length does not match")
    if length + FOOTER_BYTES > room:
        raise RecordError(
            index, offset, f"the record has {length:,} bytes, but the file ends {room:,} on"
        )
    return int(length)


def read_checksum(footer: bytes, *, index: int, offset: int) -> int:
    """Return the masked CRC32C that a frame footer holds.

    Args:
      footer: The 4 bytes of the footer; fewer if the file ended.
      index: Index of the record in its file, for errors.
      offset: Offset of the frame in its file in bytes, for errors.

    Raises:
      RecordError: the footer is cut.
    """
    if len(footer) < FOOTER_BYTES:
        raise RecordError(index, offset, "the file is shorter than it was")
    return int(_CRC.unpack_from(footer)[0])


def check_payload(payload: bytes, checksum: int, *, index: int, offset: int) -> None:
    """Check a payload, any buffer of bytes, against the masked CRC32C of its frame.

    Raises:
      RecordError: the checksum does not match.
    """
    if checksum != masked_crc32c(payload):
        raise RecordError(
            index, offset, f"the checksum of its {len(payload):,} bytes does not match"
        )


ReadAt: TypeAlias = Callable[[int, int], bytes]
"""Returns `length` bytes at `offset`, as `read(offset, length)`; fewer at the end."""


@dataclass(slots=True)  # not frozen: creating a frozen instance takes several times as long
class Frame:
    """One record in its file; `payload` is not yet checked.

    `offset` and `end` are in bytes from the beginning of the file. Without payloads, `payload`
    is empty and `checksum` 0.
    """

    index: int
    offset: int
    length: int
    payload: bytes = b""
    checksum: int = 0

    @property
    def end(self) -> int:
        """The offset of the next frame."""
        return self.offset + self.length + FRAME_BYTES

    def check(self) -> None:
        """Check the payload's checksum.

        Raises:
          RecordError: it does not match.
        """
        check_payload(self.payload, self.checksum, index=self.index, offset=self.offset)

    def damage(self) -> RecordError | None:
        """Return the error that `check` would raise, or None for a sound payload."""
        try:
            self.check()
        except RecordError as error:
            return error
        return None


def read_frame(
    read: ReadAt, size: int, *, index: int = 0, offset: int = 0, payload: bool = True
) -> Frame:
    """Return the frame that begins at `offset` in a file of `size` bytes.

    Reads header, payload and footer in this order, without a gap; only the header if
    `payload` is False.

    Raises:
      RecordError: the header is cut or damaged, or the file ends within the record. The
        offset of the next record is unknown then.
    """
    room = size - offset - HEADER_BYTES
    length = read_length(read(offset, HEADER_BYTES), index=index, offset=offset, room=room)
    if not payload:
        return Frame(index, offset, length)
    begin = offset + HEADER_BYTES
    data, footer = read(begin, length), read(begin + length, FOOTER_BYTES)
    checksum = read_checksum(footer, index=index, offset=offset)
    return Frame(index, offset, length, data, checksum)


def read_frames(
    read: ReadAt, size: int, *, index: int = 0, offset: int = 0, payload: bool = True
) -> Iterator[Frame]:
    """Yield the frames of a file from `offset`, where record `index` begins, to its end.

    Args:
      read: Reads ranges of the file: `bytes_reader`, `file_reader`, or a function of the
        caller's own for other storage.
      size: Bytes of the file.
      index: Index of the first record to yield.
      offset: Offset of that record in bytes.
      payload: Whether to read payloads and footers, not only headers.

    Raises:
      RecordError: as `read_frame`. Payloads are not checked here; see `Frame.check`.
    """
    while offset < size:
        frame = read_frame(read, size, index=index, offset=offset, payload=payload)
        yield frame
        index, offset = index + 1, frame.end


def bytes_reader(data: Any) -> ReadAt:
    """Return a reader of bytes in memory, or of an mmap."""
    return lambda offset, length: bytes(data[offset : offset + length])


def file_reader(file: BinaryIO) -> ReadAt:
    """Return a reader of an open file; not for several threads at once."""

    def read(offset: int, length: int) -> bytes:
        file.seek(offset)
        return file.read(length)

    return read


def read_records(file: BinaryIO, size: int, *, check: bool = True) -> Iterator[tuple[int, bytes]]:
    """Yield (offset, payload) of every record of an open TFRecord file of `size` bytes.

    Raises:
      RecordError: a record is cut or damaged; payloads are checked only with `check`.
    """
    for found in read_frames(file_reader(file), size):
        if check:
            found.check()
        yield found.offset, found.payload
