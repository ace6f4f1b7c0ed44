"""The JSON form of a manifest: its syntax, and the type of every field. Pure.

`tenfold.data.format.manifest` checks the values.
"""

import json
import re
from dataclasses import dataclass
from typing import Any, Final

from tenfold.data.format.json_fields import from_json_fields
from tenfold.data.format.statistics.feature_statistics import SplitStatistics

# 100,000 shards take about 20 MB.
MAX_MANIFEST_BYTES: Final = 1 << 28


@dataclass(frozen=True)
class FeatureFields:
    """An entry of ``features``."""

    name: str
    kind: str
    shape: tuple[int | None, ...]
    optional: bool = False
    sequence: bool = False


@dataclass(frozen=True)
class ShardFields:
    """An entry of ``shards``; checksums are in hexadecimal."""

    name: str
    records: int
    bytes: int
    crc32c: str
    fingerprint: str


@dataclass(frozen=True)
class SplitFields:
    """An entry of ``splits``; the first numbers are sums over its shards."""

    name: str
    records: int
    bytes: int
    fingerprint: str
    label_counts: tuple[int, ...]
    shards: tuple[ShardFields, ...]
    statistics: SplitStatistics | None = None


@dataclass(frozen=True)
class SharedRecordsFields:
    """An entry of ``shared_records``."""

    split: str
    other: str
    records: int


@dataclass(frozen=True)
class ManifestFields:
    """The whole document."""

    format: str
    version: int
    num_lanes: int
    worker_counts: tuple[int, ...]
    features: tuple[FeatureFields, ...]
    label_names: tuple[str, ...]
    source_fingerprint: str
    transform_key: str
    layout_key: str
    quarantined: int
    splits: tuple[SplitFields, ...]
    notes: tuple[str, ...] = ()
    left_out: int = 0
    shared_records: tuple[SharedRecordsFields, ...] = ()


def parse_json_object(text: str) -> Any:
    """Return the parsed JSON `text`.

    Raises:
      ValueError: it is no JSON, nested too deeply, or has a key twice.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key occurs twice in one object")
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def parse_fields(document: Any) -> ManifestFields:
    """Return the fields of a parsed document.

    Raises:
      ValueError: a field is missing, unknown or of another type; the message names it.
    """
    try:
        return from_json_fields(ManifestFields, document)
    except RecursionError:  # from the text of a nested value in a message
        raise ValueError("it is nested too deeply") from None


def parse_hex(text: str, digits: int, name: str) -> int:
    """Return the number of exactly so many lower-case hexadecimal digits.

    Raises:
      ValueError: the text is anything else; the message has `name`.
    """
    if not re.fullmatch(f"[0-9a-f]{{{digits}}}", text):
        raise ValueError(f"{name} is {text!r:.60}, not {digits} hexadecimal digits")
    return int(text, 16)


def one_line(message: str) -> str:
    """Return a message with control characters escaped, and cut after 500 characters.

    It may quote a manifest from an untrusted place.
    """
    shown = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in message)
    return shown if len(shown) <= 500 else shown[:497] + "..."
