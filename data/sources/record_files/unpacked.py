"""Compressed files of a source: unpacked once into the scratch folder of the scan.

Records are read in any order, which a GZIP or ZLIB stream does not allow.
"""

import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final

from tenfold.data.errors import JobError, UserError, os_error_text

_GZIP_MAGIC: Final = b"\x1f\x8b"
# The first byte of a ZLIB stream, RFC 1950; both bytes together are a multiple of 31.
_ZLIB_FIRST: Final = 0x78
_CHUNK_BYTES: Final = 1 << 20
# `wbits` of zlib: recognise the header, GZIP's or ZLIB's.
_ANY_HEADER: Final = 32 + zlib.MAX_WBITS


def is_gzip(head: bytes) -> bool:
    """Whether a file that begins with the two bytes `head` is a GZIP stream."""
    return head[:2] == _GZIP_MAGIC


def is_zlib(head: bytes) -> bool:
    """Whether a file that begins with the two bytes `head` may be a ZLIB stream."""
    return head[:1] == bytes((_ZLIB_FIRST,)) and int.from_bytes(head[:2], "big") % 31 == 0


def unpack_files(
    files: Sequence[str], scratch: Path, *, is_packed: Callable[[bytes], bool] = is_gzip
) -> list[str]:
    """Return the local path of each file's content: of its copy if it is compressed.

    Args:
      files: paths of local files.
      scratch: local folder for the unpacked copies.
      is_packed: whether a file that begins with 12 bytes is a GZIP or ZLIB stream.

    Raises:
      UserError: a stream is cut or damaged.
      JobError: `scratch` has no room.
    """
    paths = list(files)
    for index, path in enumerate(files):
        if not is_packed(_head(path)):
            continue
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


def _head(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(12)


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
