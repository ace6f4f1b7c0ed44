"""Compressed files of a source: unpacked once into the scratch folder of the scan.

Records are read in any order, which a GZIP or ZLIB stream does not allow.
"""

import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final

from tenfold.data.errors import JobError, UserError, os_error_text

_GZIP_MAGIC: Final = b"\x1f\x8b"
# The first byte of a ZLIB stream, RFC 1950; both bytes together are a multiple of 31.
_ZLIB_FIRST: Final = 0x78
_CHUNK_BYTES: Final = 1 << 20
# `wbits` of zlib: recognise the header, GZIP's or ZLIB's.
_ANY_HEADER: Final = 32 + zlib.MAX_WBITS


def is_compressed(head: bytes) -> bool:
    """Whether a file that begins with the two bytes `head` may be a GZIP or ZLIB stream."""
    zlib_header = head[:1] == bytes((_ZLIB_FIRST,)) and int.from_bytes(head[:2], "big") % 31 == 0
    return head[:2] == _GZIP_MAGIC or (len(head) > 1 and zlib_header)


def unpack_files(files: Sequence[str], compressed: Iterable[int], scratch: Path) -> list[str]:
    """Return the local path of each file's content: of its copy if it is compressed.

    Args:
      files: paths of local files.
      compressed: the indices of those that are GZIP or ZLIB streams.
      scratch: local folder for the unpacked copies.

    Raises:
      UserError: a stream is cut or damaged.
      JobError: `scratch` has no room.
    """
    paths = list(files)
    for index in compressed:
        target = scratch / f"unpacked-{index}"
        try:
            with open(files[index], "rb") as packed, open(target, "wb") as file:
                for part in _inflated(packed):
                    file.write(part)
        except (zlib.error, EOFError) as error:
            raise UserError(
                f"source file '{files[index]}': its compressed data is cut or damaged ({error}): "
                "fetch or write the file again"
            ) from None
        except OSError as error:
            raise JobError(
                f"source file '{files[index]}' could not be unpacked into '{scratch}': "
                f"{os_error_text(error)}; TMPDIR chooses another folder"
            ) from error
        paths[index] = os.fspath(target)
    return paths


def _inflated(packed: BinaryIO) -> Iterator[bytes]:
    """Yield the content of a file of one stream, or of several one after the other.

    Raises:
      zlib.error: the data is damaged.
      EOFError: the data is cut.
    """
    stream, begun = zlib.decompressobj(_ANY_HEADER), False
    while data := packed.read(_CHUNK_BYTES):
        while data:
            if stream.eof:
                stream, begun = zlib.decompressobj(_ANY_HEADER), False
            yield stream.decompress(data)
            begun, data = True, stream.unused_data
    if begun and not stream.eof:
        raise EOFError("it ends too early")
