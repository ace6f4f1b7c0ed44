"""TFRecord files: framing, checksums and fingerprints of records.

A record (tensorflow/core/lib/io/record_writer.h), all numbers little-endian:

    8 bytes   length of the payload
    4 bytes   masked CRC32C of those 8 bytes
    length    payload
    4 bytes   masked CRC32C of the payload
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

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
    """Returns the CRC32C of two parts together, of that of each and the second one's length.

    A CRC is linear: what `first` adds to it is what it becomes by as many zero bytes.
    """
    if not first:
        return second
    return second ^ _after_zeros(first, second_bytes) ^ _after_zeros(0, second_bytes)


def _after_zeros(crc: int, num_bytes: int) -> int:
    for begin in range(0, num_bytes, len(_ZEROS)):
        crc = extend_crc32c(crc, _ZEROS[: num_bytes - begin])
    return crc


def masked_crc32c(data: bytes) -> int:
    """Returns the CRC32C of `data` as TFRecord stores it."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def frame_header(length: int) -> bytes:
    """Returns the 12 bytes before a payload of `length` bytes."""
    packed = _LENGTH.pack(length)
    return packed + _CRC.pack(masked_crc32c(packed))


def frame_footer(payload: bytes) -> bytes:
    """Returns the 4 bytes after a payload."""
    return _CRC.pack(masked_crc32c(payload))


def frame(payload: bytes) -> bytes:
    """Returns the framed record of `payload`."""
    return frame_header(len(payload)) + payload + frame_footer(payload)


@dataclass
class RecordError(ValueError):
    """A record does not stand as it should: its index, its offset in bytes, and what is wrong.

    With `lost` the end of the record cannot be known, and the rest of the file neither.
    """

    index: int
    offset: int
    problem: str
    lost: bool = True

    def __str__(self) -> str:
        return f"record {self.index} at byte {self.offset:,}: {self.problem}"


def read_length(header: bytes, *, index: int, offset: int, room: int) -> int:
    """Returns the payload's length of a record's 12-byte `header`.

    `room` is how many bytes follow the header in the file.

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


def check_payload(payload: bytes, footer: bytes, *, index: int, offset: int) -> None:
    """Checks a payload against its footer.

    Raises:
      RecordError: the checksum does not match.
    """
    if _CRC.unpack(footer)[0] != masked_crc32c(payload):
        raise RecordError(
            index, offset, f"the checksum of its {len(payload):,} bytes does not match", lost=False
        )


def read_records(file: BinaryIO, size: int, *, check: bool = True) -> Iterator[tuple[int, bytes]]:
    """Yields (offset, payload) of every record of an open TFRecord file of `size` bytes.

    Raises:
      RecordError: a record is cut or damaged; with `check` payloads are checked too.
    """
    offset = index = 0
    while offset < size:
        room = size - offset - HEADER_BYTES
        length = read_length(file.read(HEADER_BYTES), index=index, offset=offset, room=room)
        payload, footer = file.read(length), file.read(FOOTER_BYTES)
        if len(footer) < FOOTER_BYTES:
            raise RecordError(index, offset, "the file is shorter than it was")
        if check:
            check_payload(payload, footer, index=index, offset=offset)
        yield offset, payload
        offset += length + FRAME_BYTES
        index += 1
