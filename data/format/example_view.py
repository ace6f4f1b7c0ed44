"""One feature of a serialized Example (see `example`), without parsing the rest of it.

Runs once per record and epoch, so it reads only the few bytes around an image of tens of KB. A
regular expression matches the layout that all common writers produce; any other valid Example
is walked field by field.
"""

import re
from collections.abc import Iterator
from functools import cache
from typing import Final, TypeAlias

from tenfold.data.format.example import entry_list, field, read_varint, walk_example

# The keys of length-delimited fields 1 and 2.
_FIRST: Final = 1 << 3 | 2
_SECOND: Final = 2 << 3 | 2

_VARINT: Final = rb"([\x80-\xff]{0,3}[\x00-\x7f])"
_FIELD: Final = re.compile(rb"\n" + _VARINT)
# An entry of the map up to its name of up to 127 bytes; its feature up to its packed list.
_ENTRY: Final = re.compile(rb"\n" + _VARINT + rb"\n([\x00-\x7f])")
_FEATURE: Final = re.compile(
    rb"\x12[\x80-\xff]{0,3}[\x00-\x7f]([\n\x12\x1a])" + _VARINT, re.DOTALL
)
_KINDS: Final = {b"\n": "bytes", b"\x12": "float", b"\x1a": "int64"}


def split_feature(payload: memoryview, name: str) -> tuple[memoryview, bytes]:
    """Return the only value of the bytes feature `name`, and the Example without that feature.

    The other features are not parsed.

    Args:
      payload: a serialized Example.
      name: the feature's name.

    Returns:
      A view into `payload`, and a new serialized Example.

    Raises:
      ValueError: `payload` is no serialized Example, or the feature has no or several values.
    """
    return _match_common_layout(payload, name) or _walk(payload, name)


def find_feature(payload: memoryview, name: str) -> tuple[str, bytes] | None:
    """Return the kind and the packed list of one feature, or None if the Example lacks it.

    Raises:
      ValueError: `payload` is no serialized Example.
    """
    key = field(1, name.encode())
    features = _FIELD.match(payload)
    if features is None or features.end() + _parse_varint(features[1]) != len(payload):
        return _last_named(payload, name)
    found, position = None, features.end()
    while position < len(payload):
        entry = _FIELD.match(payload, position)
        # Name and feature may come in either order.
        if entry is None or payload[entry.end() : entry.end() + 1] == b"\x12":
            return _last_named(payload, name)
        position = entry.end() + _parse_varint(entry[1])
        if payload[entry.end() : entry.end() + len(key)] == key:
            found = payload[entry.end() : position].tobytes()
    return entry_list(found) if found else None


def _last_named(payload: memoryview, name: str) -> tuple[str, bytes] | None:
    found = [(kind, packed) for n, kind, packed in walk_example(payload.tobytes()) if n == name]
    return found[-1] if found else None


def feature_lists(payload: bytes) -> list[tuple[str, str, bytes]]:
    """Return name, kind and packed list of every feature, as `walk_example` yields them.

    Quick for the common layout of messages.

    Raises:
      ValueError: `payload` is no serialized Example.
    """
    features = _FIELD.match(payload)
    if features is None or features.end() + _parse_varint(features[1]) != len(payload):
        return list(walk_example(payload))
    found, position = [], features.end()
    while position < len(payload):
        entry = _ENTRY.match(payload, position)
        if entry is None:
            return list(walk_example(payload))
        position = entry.end(1) + _parse_varint(entry[1])
        name_end = entry.end() + entry[2][0]
        feature = _FEATURE.match(payload, name_end)
        if feature is None or feature.end() + _parse_varint(feature[2]) != position:
            return list(walk_example(payload))
        name = payload[entry.end() : name_end].decode()
        found.append((name, _KINDS[feature[1]], payload[feature.end() : position]))
    return found


def replace_feature(payload: bytes, name: str, entry: bytes) -> bytes:
    """Return the Example, or SequenceExample, with `entry` (`feature_entry`) as feature `name`.

    Raises:
      ValueError: `payload` is no serialized Example.
    """
    view, entries, wanted = memoryview(payload), [], name.encode()
    try:
        for begin, end, found, _ in _entries(view):
            entries.append(entry if view[slice(*found)] == wanted else view[begin:end])
        sequences = [view[begin:end] for begin, _, end in _spans(view, 0, len(view), key=_SECOND)]
    except IndexError as error:
        raise ValueError("not an Example: a number is cut") from error
    return b"".join((field(1, b"".join(entries)), *sequences))


def _match_common_layout(payload: memoryview, name: str) -> tuple[memoryview, bytes] | None:
    """Do the same for an Example whose messages hold only the fields that they need; else None."""
    key, entry = _patterns(name)
    features = _FIELD.match(payload)
    if features is None or features.end() + _parse_varint(features[1]) != len(payload):
        return None
    found = _find(entry, payload, features.end())
    if found is None:
        return None
    entry_bytes, feature_bytes, list_bytes, value_bytes = map(_parse_varint, found.groups())
    end = found.end() + value_bytes
    ends = found.end(1) + entry_bytes, found.end(2) + feature_bytes, found.end(3) + list_bytes
    if ends != (end, end, end) or end > len(payload):
        return None
    rest = payload[features.end() : found.start()].tobytes() + payload[end:].tobytes()
    # Of several entries with one name the last counts: leave them to `_walk`.
    return None if key in rest else (payload[found.end() : end], field(1, rest))


def _find(entry: re.Pattern[bytes], payload: memoryview, position: int) -> re.Match[bytes] | None:
    """Return the first match of `entry` among the fields from `position` on."""
    while (found := entry.match(payload, position)) is None:
        other = _FIELD.match(payload, position)
        if other is None:
            return None
        position = other.end() + _parse_varint(other[1])
    return found


@cache
def _patterns(name: str) -> tuple[bytes, re.Pattern[bytes]]:
    """Return the key of a feature's entry, and a pattern of the entry up to its bytes value.

    The groups of the pattern are the lengths of the entry, the feature, its list and the value.
    """
    key = field(1, name.encode())
    feature = rb"\x12" + _VARINT + rb"\n" + _VARINT + rb"\n" + _VARINT
    return key, re.compile(rb"\n" + _VARINT + re.escape(key) + feature)


def _parse_varint(varint: bytes) -> int:
    """Return the number of a varint of up to four bytes."""
    bits = int.from_bytes(varint, "little")
    return bits & 0x7F | bits >> 1 & 0x3F80 | bits >> 2 & 0x1FC000 | bits >> 3 & 0xFE00000


def _walk(payload: memoryview, name: str) -> tuple[memoryview, bytes]:
    wanted, value, rest = name.encode(), None, []
    try:
        for begin, end, found, feature in _entries(payload):
            if payload[slice(*found)] == wanted:
                value = feature
            else:
                rest.append(payload[begin:end])
        values = [] if value is None else _bytes_values(payload, *value)
    except IndexError as error:
        raise ValueError("not an Example: a number is cut") from error
    if len(values) != 1:
        raise ValueError(f"feature '{name}' has {len(values)} bytes values, not one")
    begin, end = values[0]
    return payload[begin:end], field(1, b"".join(rest))


_Span: TypeAlias = tuple[int, int]


def _entries(payload: memoryview) -> Iterator[tuple[int, int, _Span, _Span | None]]:
    """Yield begin and end of each entry of the map of features, of its name and its feature."""
    for _, begin, end in _spans(payload, 0, len(payload), key=_FIRST):
        for entry, start, stop in _spans(payload, begin, end, key=_FIRST):
            # Name and feature may come in either order.
            parts = {payload[key]: (a, b) for key, a, b in _spans(payload, start, stop)}
            yield entry, stop, parts.get(_FIRST, (stop, stop)), parts.get(_SECOND)


def _bytes_values(payload: memoryview, begin: int, end: int) -> list[tuple[int, int]]:
    """Return begin and end of each value of a feature's list of bytes."""
    return [
        (first, last)
        for _, start, stop in _spans(payload, begin, end, key=_FIRST)
        for _, first, last in _spans(payload, start, stop, key=_FIRST)
    ]


def _spans(
    data: memoryview, position: int, end: int, *, key: int | None = None
) -> Iterator[tuple[int, int, int]]:
    """Yield the positions of key, content and end of each length-delimited field.

    Args:
      data: the Example.
      position: the begin of the message.
      end: the end of the message.
      key: yield the fields with this key only.
    """
    while position < end:
        begin, wire_type = position, data[position] & 7
        if data[position] >= 0x80 or wire_type != 2:
            position = _skip(data, position)
            continue
        length, start = data[begin + 1], begin + 2
        if length >= 0x80:
            length, start = read_varint(data, begin + 1)
        position = start + length
        if position > end:
            raise ValueError(f"not an Example: a field of {length:,} bytes is cut")
        if key is None or data[begin] == key:
            yield begin, start, position


def _skip(data: memoryview, position: int) -> int:
    """Return the end of a field that no Example of today has, but a later version might."""
    key, position = read_varint(data, position)
    wire_type = key & 7
    if wire_type == 0:
        return read_varint(data, position)[1]
    if wire_type == 2:
        length, position = read_varint(data, position)
        return position + length
    if wire_type not in (1, 5):
        raise ValueError(f"not an Example: wire type {wire_type} at byte {position}")
    return position + (8 if wire_type == 1 else 4)
