"""Sizes, durations and counts as people write them: ``10GB``, ``224x224``, ``1.5 s``."""

import re
from typing import Final

from tenfold.data.errors import UserError

_DECIMAL: Final = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "PB": 10**15,
}
_BINARY: Final = {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40, "PIB": 2**50}
_SHORT: Final = {"K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}
_UNITS: Final = {**_DECIMAL, **_BINARY, **_SHORT}
_SIZE = re.compile(r"([0-9][0-9_,]*(?:\.[0-9]+)?)\s*([A-Za-z]*)")

_SECONDS: Final = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(s|m|min|h|d|)")
_IMAGE_SIZE = re.compile(r"([0-9]+)(?:x([0-9]+))?")
MAX_SIDE_PIXELS: Final = 16_384


def parse_size(text: str) -> int:
    """Return the number of bytes that `text` names; ``10GB`` is decimal, ``64MiB`` binary.

    Raises:
      UserError: `text` is not a number with one of the known units.
    """
    match = _SIZE.fullmatch(text.strip())
    unit = match.group(2).upper() if match else None
    if match is None or unit not in _UNITS:
        raise UserError(f"size '{text}' is not a number with a unit: write 250MB, 10GB or 64MiB")
    number = match.group(1).replace("_", "").replace(",", "")
    return round(float(number) * _UNITS[unit]) if "." in number else int(number) * _UNITS[unit]


def parse_image_size(text: str, where: str) -> tuple[int, int]:
    """Return (height, width) in pixels of ``192x256``, or of ``224``, which is square.

    Args:
      text: the size as the user wrote it.
      where: the flag and its value, for the message: ``--transform=resize:192x256``.

    Raises:
      UserError: `text` is no size, or a side is not within 1 to MAX_SIDE_PIXELS.
    """
    match = _IMAGE_SIZE.fullmatch(text.strip().lower())
    if match is None:
        raise UserError(f"{where}: write the size as 224 or as 192x256 (HEIGHTxWIDTH, in pixels)")
    height, width = int(match.group(1)), int(match.group(2) or match.group(1))
    if not (1 <= height <= MAX_SIDE_PIXELS and 1 <= width <= MAX_SIDE_PIXELS):
        raise UserError(f"{where}: a side has 1 to {MAX_SIDE_PIXELS:,} pixels")
    return height, width


def format_size(num_bytes: float) -> str:
    """Return `num_bytes` in the largest decimal unit that keeps it at 1 or above: ``1.5 MB``."""
    for unit in ("PB", "TB", "GB", "MB", "KB"):
        if abs(num_bytes) >= _DECIMAL[unit]:
            return f"{num_bytes / _DECIMAL[unit]:.3g} {unit}".replace("e+03", "000")
    return f"{num_bytes:.0f} B"


def parse_duration(text: str, where: str) -> float:
    """Return the seconds of ``10min``, ``90s``, ``2h`` or ``600`` (seconds).

    Args:
      text: the duration as the user wrote it.
      where: the flag, for the message.

    Raises:
      UserError: `text` is no duration.
    """
    match = _DURATION.fullmatch(text.strip().lower())
    if match is None:
        raise UserError(f"{where}={text}: write a time as 600 (seconds), 90s, 10min or 2h")
    return float(match.group(1)) * _SECONDS[match.group(2)]


def format_duration(seconds: float) -> str:
    """Return `seconds` as people say it: ``0.41 s``, ``12 s``, ``3 min 20 s``, ``2 h 05 min``."""
    if seconds < 10:
        return f"{seconds:.2g} s" if seconds < 1 else f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def plural(count: int, noun: str, many: str = "") -> str:
    """Return the count with its noun: ``1 shard`` or ``12,000 shards``."""
    return f"{count:,} {noun if count == 1 else many or noun + 's'}"
