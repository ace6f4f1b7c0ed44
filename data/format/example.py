"""Encoding and decoding of `tf.train.Example` without TensorFlow or protobuf.

The messages (tensorflow/core/example/{example,feature}.proto) in the wire format of protobuf,
where a key is field << 3 | wire type, and wire type 2 is a varint length and that many bytes:

    Example   1: Features
    Features  1: repeated { 1: name, 2: Feature }        (a map entry)
    Feature   1: BytesList | 2: FloatList | 3: Int64List
    BytesList 1: repeated bytes
    FloatList 1: float32, packed (or repeated with wire type 5)
    Int64List 1: varint, packed (or repeated with wire type 0)

Features are written in the order of their names, so that equal values give equal bytes.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

# bytes, str, int, bool, float, nested sequences of one of these, or a numpy array or scalar.
Value: TypeAlias = Any
Features: TypeAlias = Mapping[str, Value]
Shape: TypeAlias = tuple[int | None, ...]

_KINDS: Final = {1: "bytes", 2: "float", 3: "int64"}
# The field of a Feature that holds a list of each kind.
LIST_FIELDS: Final = {kind: field for field, kind in _KINDS.items()}
_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1


def varint(number: int) -> bytes:
    """Return a number of range(2**64) as a base-128 varint."""
    # The lengths in records of up to 2 MB: several a record, so that the loop would be felt.
    if number < 0x80:
        return bytes((number,))
    if number < 0x4000:
        return bytes((number & 0x7F | 0x80, number >> 7))
    if number < 0x200000:
        return bytes((number & 0x7F | 0x80, number >> 7 & 0x7F | 0x80, number >> 14))
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def field(number: int, data: bytes) -> bytes:
    """Return `data` as field `number` of a message, at most 15."""
    return bytes((number << 3 | 2,)) + varint(len(data)) + data


def encode_example(features: Features) -> bytes:
    """Return the serialized Example of `features`.

    Raises:
      ValueError: a value has no type that an Example can hold; the message names the feature.
    """
    return encode_lists({name: to_list(name, features[name])[:2] for name in features})


def encode_lists(lists: Mapping[str, tuple[str, bytes]]) -> bytes:
    """Return the serialized Example of the kinds and packed lists that `to_list` returns."""
    if not lists:
        return b""
    return field(1, b"".join(feature_entry(name, *lists[name]) for name in sorted(lists)))


def feature_entry(name: str, kind: str, packed: bytes) -> bytes:
    """Return one entry of the map of features; `packed` is the message of its list."""
    value = field(LIST_FIELDS[kind], packed)
    return field(1, field(1, name.encode()) + field(2, value))


def to_list(name: str, value: Value) -> tuple[str, bytes, tuple[int, ...]]:
    """Return the kind, the packed list and the shape of one value.

    Raises:
      ValueError: the value has no type that an Example can hold; the message has `name`.
    """
    if hasattr(value, "dtype"):
        return _from_array(name, value)
    flat: list[Any] = []
    shape = _flatten(name, value, flat)
    kind = _kind_of(name, flat)
    return kind, _PACK[kind](name, flat), shape


def _flatten(name: str, value: Value, out: list[Any]) -> tuple[int, ...]:
    """Append the scalars of nested sequences to `out`; return the shape."""
    if not isinstance(value, (list, tuple)):
        out.append(value)
        return ()
    shapes = {_flatten(name, item, out) for item in value}
    if len(shapes) > 1:
        raise ValueError(f"feature '{name}' is ragged: its rows have shapes {sorted(shapes)}")
    return (len(value), *(shapes.pop() if shapes else ()))


def _kind_of(name: str, flat: Sequence[Any]) -> str:
    if all(isinstance(item, int) for item in flat) and flat:
        return "int64"
    if all(isinstance(item, (int, float)) for item in flat):
        return "float"
    if all(isinstance(item, (bytes, bytearray, memoryview, str)) for item in flat):
        return "bytes"
    names = sorted({type(item).__name__ for item in flat})
    raise ValueError(
        f"feature '{name}' holds {' and '.join(names)}: "
        "an Example holds bytes, text, whole numbers or floats"
    )


def _from_array(name: str, array: Any) -> tuple[str, bytes, tuple[int, ...]]:
    code, shape = array.dtype.kind, tuple(array.shape)
    if code in "iub":
        return "int64", _pack_ints(name, array.ravel().tolist()), shape
    if code == "f" or array.dtype.name == "bfloat16":
        return "float", _packed(array.astype("<f4").tobytes()), shape
    if code in "SUO":
        flat = array.ravel().tolist()
        kind = _kind_of(name, flat)
        return kind, _PACK[kind](name, flat), shape
    raise ValueError(f"feature '{name}' is an array of {array.dtype}: convert it to numbers")


def _packed(data: bytes) -> bytes:
    return field(1, data) if data else b""


def _pack_ints(name: str, flat: Sequence[int]) -> bytes:
    for number in flat:
        if not _INT64_MIN <= number <= _INT64_MAX:
            raise ValueError(f"feature '{name}' holds {number}, which is no 64-bit integer")
    return _packed(b"".join([varint(number & 0xFFFFFFFFFFFFFFFF) for number in flat]))


def _pack_floats(name: str, flat: Sequence[float]) -> bytes:
    try:
        return _packed(struct.pack(f"<{len(flat)}f", *flat))
    except OverflowError as error:
        raise ValueError(f"feature '{name}' holds a number too large for float32") from error


def _pack_bytes(name: str, flat: Sequence[Any]) -> bytes:
    del name
    items = (item.encode() if isinstance(item, str) else bytes(item) for item in flat)
    return b"".join([field(1, item) for item in items])


_PACK: Final = {"int64": _pack_ints, "float": _pack_floats, "bytes": _pack_bytes}


def decode_example(payload: bytes) -> dict[str, tuple[str, list[Any]]]:
    """Return each feature's kind and flat list of values, by name; a list may be empty.

    Raises:
      ValueError: `payload` is not a serialized Example.
    """
    return {
        name: (kind, list(_UNPACK[kind](packed))) for name, kind, packed in walk_example(payload)
    }


def walk_example(payload: bytes) -> Iterator[tuple[str, str, bytes]]:
    """Yield name, kind and packed list of every feature that has a kind.

    Raises:
      ValueError: `payload` is not a serialized Example.
    """
    for number, features in _fields(payload):
        if number != 1:
            continue
        for inner, entry in _fields(features):
            if inner == 1:
                parts = dict(_fields(entry))
                name = parts.get(1, b"").decode()
                yield from ((name, *found) for found in _feature_lists(parts.get(2, b"")))


def _feature_lists(feature: bytes) -> Iterator[tuple[str, bytes]]:
    for number, packed in _fields(feature):
        if number in _KINDS:
            yield _KINDS[number], packed


def entry_list(entry: bytes) -> tuple[str, bytes] | None:
    """Return the kind and the packed list of an entry of the map; None for a feature without.

    Raises:
      ValueError: `entry` is not an entry of the map of features.
    """
    return next(_feature_lists(dict(_fields(entry)).get(2, b"")), None)


def walk_sequences(payload: bytes) -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """Yield name, and kind and packed list of each step, of the sequences of a SequenceExample.

    SequenceExample  1: Features (its context) | 2: FeatureLists
    FeatureLists     1: repeated { 1: name, 2: FeatureList }     (a map entry)
    FeatureList      1: repeated Feature

    An Example has none.

    Raises:
      ValueError: `payload` is not a serialized SequenceExample.
    """
    if payload[:1] == b"\x0a":
        length, start = read_varint(payload, 1)
        if start + length == len(payload):  # an Example, the usual case: no bytes are copied
            return
    for number, lists in _fields(payload):
        for inner, entry in _fields(lists) if number == 2 else ():
            if inner == 1:
                parts = dict(_fields(entry))
                steps = [part for key, part in _fields(parts.get(2, b"")) if key == 1]
                found = [next(_feature_lists(step), ("bytes", b"")) for step in steps]
                yield parts.get(1, b"").decode(), found


def count_values(kind: str, packed: bytes) -> int:
    """Return the number of values in a packed list, without unpacking numbers."""
    if kind == "bytes":
        return sum(1 for _ in _fields(packed))
    total = 0
    for number, wire_type, data in _raw_fields(packed):
        if number != 1:
            continue
        if wire_type != 2:
            total += 1
        elif kind == "float":
            total += len(data) // 4
        else:
            total += sum(byte < 0x80 for byte in data)
    return total


def unpack_list(kind: str, packed: bytes) -> list[Any]:
    """Return the values of a packed list."""
    return list(_UNPACK[kind](packed))


def _unpack_bytes(packed: bytes) -> Iterator[bytes]:
    for number, data in _fields(packed):
        if number == 1:
            yield data


def _unpack_floats(packed: bytes) -> Iterator[float]:
    for number, _, data in _raw_fields(packed):
        if number == 1:
            if len(data) % 4:
                raise ValueError("a list of floats is cut")
            yield from struct.unpack(f"<{len(data) // 4}f", data)


def _unpack_ints(packed: bytes) -> Iterator[int]:
    for number, _, data in _raw_fields(packed):
        position = 0
        while number == 1 and position < len(data):
            value, position = read_varint(data, position)
            yield value - 2**64 if value >= 2**63 else value


_UNPACK: Final = {"bytes": _unpack_bytes, "float": _unpack_floats, "int64": _unpack_ints}


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield number and bytes of the length-delimited fields of a message."""
    for number, wire_type, data in _raw_fields(message):
        if wire_type == 2:
            yield number, data


def _raw_fields(message: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield number, wire type and bytes of every field of a message."""
    position, end = 0, len(message)
    while position < end:
        key, position = read_varint(message, position)
        start, wire_type = position, key & 7
        if wire_type == 2:
            length, start = read_varint(message, position)
            position = start + length
        elif wire_type == 0:
            _, position = read_varint(message, position)
        elif wire_type in (1, 5):
            position += 8 if wire_type == 1 else 4
        else:
            raise ValueError(f"not an Example: wire type {wire_type} at byte {start}")
        if position > end:
            raise ValueError(f"not an Example: a field of {position - start} bytes is cut")
        yield key >> 3, wire_type, message[start:position]


def read_varint(data: bytes | memoryview, position: int) -> tuple[int, int]:
    """Return the varint at `position`, and the position after it.

    Raises:
      ValueError: the data ends within the varint, or it has more than 64 bits.
    """
    result = shift = 0
    while True:
        if position >= len(data) or shift > 63:
            raise ValueError("not an Example: a number is cut")
        byte = data[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result & 0xFFFFFFFFFFFFFFFF, position
        shift += 7
