"""One value cut out of a serialized Example (see `example`), as a view, not a copy.

Of tens of KB of an image this touches a few bytes, once a record of every epoch: what is laid
out as everybody's writers do it is matched as a whole, anything else is walked through.
"""

import re
from collections.abc import Iterator
from functools import cache
from typing import Final

from tenfold.data.format.example import field, read_varint

# The keys of length-delimited fields 1 and 2.
_FIRST: Final = 1 << 3 | 2
_SECOND: Final = 2 << 3 | 2

_VARINT: Final = rb"([\x80-\xff]{0,3}[\x00-\x7f])"
_FIELD: Final = re.compile(rb"\n" + _VARINT)


def split_feature(payload: memoryview, name: str) -> tuple[memoryview, bytes]:
    """Returns the one bytes value of feature `name`, uncopied, and the Example without it.

    The other features are not looked into.

    Raises:
      ValueError: `payload` is not a serialized Example, or has no such feature of one value.
    """
    return _as_written(payload, name) or _from_anywhere(payload, name)


def _as_written(payload: memoryview, name: str) -> tuple[memoryview, bytes] | None:
    """Returns what `split_feature` does where each message holds nothing but what it is for."""
    key, entry = _patterns(name)
    features = _FIELD.match(payload)
    if features is None or features.end() + _number(features[1]) != len(payload):
        return None
    found = _find(entry, payload, features.end())
    if found is None:
        return None
    entry_bytes, feature_bytes, list_bytes, value_bytes = map(_number, found.groups())
    end = found.end() + value_bytes
    ends = found.end(1) + entry_bytes, found.end(2) + feature_bytes, found.end(3) + list_bytes
    if ends != (end, end, end) or end > len(payload):
        return None
    rest = payload[features.end() : found.start()].tobytes() + payload[end:].tobytes()
    # Of entries with one name the last one counts.
    return None if key in rest else (payload[found.end() : end], field(1, rest))


def _find(entry: re.Pattern[bytes], payload: memoryview, at: int) -> re.Match[bytes] | None:
    """Returns the first of the fields from `at` on that is an `entry`."""
    while (found := entry.match(payload, at)) is None:
        other = _FIELD.match(payload, at)
        if other is None:
            return None
        at = other.end() + _number(other[1])
    return found


@cache
def _patterns(name: str) -> tuple[bytes, re.Pattern[bytes]]:
    """Returns the key of a feature's entry, and the entry up to its one bytes value.

    The groups are the lengths of the entry, the feature, its list and the value.
    """
    key = field(1, name.encode())
    feature = rb"\x12" + _VARINT + rb"\n" + _VARINT + rb"\n" + _VARINT
    return key, re.compile(rb"\n" + _VARINT + re.escape(key) + feature)


def _number(varint: bytes) -> int:
    """Returns the number of a varint of up to four bytes."""
    bits = int.from_bytes(varint, "little")
    return bits & 0x7F | bits >> 1 & 0x3F80 | bits >> 2 & 0x1FC000 | bits >> 3 & 0xFE00000


def _from_anywhere(payload: memoryview, name: str) -> tuple[memoryview, bytes]:
    wanted, value, rest = name.encode(), None, []
    try:
        for _, begin, end in _spans(payload, 0, len(payload), key=_FIRST):
            for at, start, stop in _spans(payload, begin, end, key=_FIRST):
                # The name and the feature, wherever protobuf has put them.
                parts = {payload[key]: (a, b) for key, a, b in _spans(payload, start, stop)}
                named, named_to = parts.get(_FIRST, (stop, stop))
                if payload[named:named_to] == wanted:
                    value = parts.get(_SECOND)
                else:
                    rest.append(payload[at:stop])
        values = [] if value is None else _bytes_values(payload, *value)
    except IndexError as error:
        raise ValueError("not an Example: a number is cut") from error
    if len(values) != 1:
        raise ValueError(f"feature '{name}' has {len(values)} bytes values, not one")
    begin, end = values[0]
    return payload[begin:end], field(1, b"".join(rest))


def _bytes_values(payload: memoryview, begin: int, end: int) -> list[tuple[int, int]]:
    """Returns where the values of a feature's list of bytes begin and end."""
    return [
        (first, last)
        for _, start, stop in _spans(payload, begin, end, key=_FIRST)
        for _, first, last in _spans(payload, start, stop, key=_FIRST)
    ]


def _spans(
    data: memoryview, position: int, end: int, *, key: int | None = None
) -> Iterator[tuple[int, int, int]]:
    """Yields where the key, the bytes and the end of each length-delimited field are.

    `key` asks for one field only.
    """
    while position < end:
        at, wire_type = position, data[position] & 7
        if data[position] >= 0x80 or wire_type != 2:
            position = _skip(data, position)
            continue
        length, start = data[at + 1], at + 2
        if length >= 0x80:
            length, start = read_varint(data, at + 1)
        position = start + length
        if position > end:
            raise ValueError(f"not an Example: a field of {length:,} bytes is cut")
        if key is None or data[at] == key:
            yield at, start, position


def _skip(data: memoryview, position: int) -> int:
    """Returns where a field ends that no Example has, but a later version might."""
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
