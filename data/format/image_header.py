"""The shape of a JPEG or PNG, and a check that it is complete, without decoding it.

JPEG (ITU-T T.81, annex B): markers with big-endian lengths up to the start of scan (SOS),
entropy-coded data, end of image (EOI). PNG (W3C PNG, section 5): a signature, then chunks of
length, type, data and CRC-32 up to IEND.
"""

import struct
import zlib
from typing import Final

JPEG_MAGIC: Final = b"\xff\xd8\xff"
PNG_MAGIC: Final = b"\x89PNG\r\n\x1a\n"
_EOI: Final = b"\xff\xd9"
_SOS: Final = 0xDA
# Start of frame: C0 to CF without DHT (C4), JPG (C8) and DAC (CC).
_SOF: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Markers without a length: TEM and the restarts.
_NO_LENGTH: Final = frozenset({0x01, *range(0xD0, 0xD8)})
_SEGMENT: Final = struct.Struct(">BBH")
_FRAME: Final = struct.Struct(">BHHB")
_CHUNK: Final = struct.Struct(">I4s")
_IHDR: Final = struct.Struct(">IIBB")
_PNG_CHANNELS: Final = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}

# Other image formats, for messages: offset and value of their magic bytes, and their name.
_OTHERS: Final = (
    (0, b"GIF8", "GIF"),
    (8, b"WEBP", "WebP"),
    (0, b"BM", "BMP"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftyp", "HEIF"),
    (0, b"\xff\x0a", "JPEG XL"),
    (4, b"JXL ", "JPEG XL"),
)

ImageShape = tuple[int, int, int]

# A few hundred bytes can claim an image of any size. More pixels than any camera takes are refused
# before memory is allocated; as RGB they take 450 MB.
MAX_PIXELS: Final = 150_000_000


def is_image(data: bytes) -> bool:
    """Return True if `data` begins like a JPEG or a PNG."""
    return data.startswith((JPEG_MAGIC, PNG_MAGIC))


def image_format(data: bytes) -> str:
    """Return ``jpeg``, ``png`` or, for anything else, an empty text."""
    return "jpeg" if data.startswith(JPEG_MAGIC) else "png" if data.startswith(PNG_MAGIC) else ""


def image_shape(data: bytes) -> ImageShape:
    """Return (height, width, channels) of an encoded JPEG or PNG, as TensorFlow decodes it.

    Raises:
      ValueError: the data is neither, or it is cut, damaged or larger than MAX_PIXELS; the
        message says how.
    """
    if data.startswith(JPEG_MAGIC):
        return _jpeg_shape(data)
    if data.startswith(PNG_MAGIC):
        return _png_shape(data)
    if not data:
        raise ValueError("it is empty")
    raise ValueError(f"it is neither JPEG nor PNG but {_foreign(data)}")


def check_pixels(height: int, width: int) -> None:
    """Check that an image has at most MAX_PIXELS.

    Raises:
      ValueError: it has more.
    """
    if height * width > MAX_PIXELS:
        raise ValueError(
            f"the image has {width:,} × {height:,} pixels, more than the {MAX_PIXELS:,} allowed"
        )


def other_format(data: bytes) -> str:
    """Return the name of the image format of data that is neither JPEG nor PNG; "" if unknown."""
    return next((n for o, magic, n in _OTHERS if data[o : o + len(magic)] == magic), "")


def _foreign(data: bytes) -> str:
    """Return a description of data that is neither JPEG nor PNG."""
    if name := other_format(data):
        return f"{name}: --transform=encode:jpeg converts it"
    return f"something that begins with {repr(data[:8])[1:]}"


def _jpeg_shape(data: bytes) -> ImageShape:
    position, end = 2, len(data) - 4
    shape: ImageShape | None = None
    while position < end:
        lead, marker, length = _SEGMENT.unpack_from(data, position)
        if lead != 0xFF:
            raise ValueError(f"the JPEG has no marker at byte {position}: it is damaged")
        if marker == 0xFF:  # fill byte
            position += 1
        elif marker in _NO_LENGTH:
            position += 2
        elif marker == _SOS:
            return _whole_jpeg(data, position, shape)
        else:
            if marker in _SOF:
                shape = _frame_shape(data, position + 4)
            position += 2 + length
    raise ValueError("the JPEG ends before its image data: it is cut")


def _frame_shape(data: bytes, position: int) -> ImageShape:
    if position + _FRAME.size > len(data):
        raise ValueError("the JPEG ends inside its frame header: it is cut")
    _, height, width, channels = _FRAME.unpack_from(data, position)
    if not (height and width and channels):
        raise ValueError(f"the JPEG says {width} × {height} pixels of {channels} channels")
    check_pixels(height, width)
    # TensorFlow decodes four channels (CMYK) to three.
    return height, width, min(channels, 3)


def _whole_jpeg(data: bytes, sos: int, shape: ImageShape | None) -> ImageShape:
    if shape is None:
        raise ValueError("the JPEG has no frame header: it is damaged")
    if data.rfind(_EOI, sos) < 0:
        raise ValueError("the JPEG has no end of image: it is cut")
    return shape


def _png_shape(data: bytes) -> ImageShape:
    position = len(PNG_MAGIC)
    shape: ImageShape | None = None
    while position + 12 <= len(data):
        length, kind = _CHUNK.unpack_from(data, position)
        body_end = position + 8 + length
        if body_end + 4 > len(data):
            raise ValueError(f"the PNG ends inside its chunk {kind!r}: it is cut")
        if data[body_end : body_end + 4] != _png_crc(data, position + 4, body_end):
            raise ValueError(f"the PNG's chunk {kind!r} at byte {position} is damaged (CRC)")
        if kind == b"IHDR":
            shape = _ihdr_shape(data, position + 8, length)
        elif kind == b"tRNS" and shape is not None and data[25] == 3:
            shape = (*shape[:2], 4)
        elif kind == b"IEND":
            if shape is None:
                raise ValueError("the PNG has no header: it is damaged")
            return shape
        position = body_end + 4
    raise ValueError("the PNG has no end chunk: it is cut")


def _png_crc(data: bytes, start: int, end: int) -> bytes:
    return zlib.crc32(memoryview(data)[start:end]).to_bytes(4, "big")


def _ihdr_shape(data: bytes, position: int, length: int) -> ImageShape:
    if length != 13:
        raise ValueError("the PNG's header is damaged")
    width, height, _, color = _IHDR.unpack_from(data, position)
    if not (width and height) or color not in _PNG_CHANNELS:
        raise ValueError(f"the PNG says {width} × {height} pixels of colour type {color}")
    check_pixels(height, width)
    return height, width, _PNG_CHANNELS[color]
