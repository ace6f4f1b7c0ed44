"""Show the content of a data set: its schema, some records, and code that reads it."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from tenfold.data.errors import JobError
from tenfold.data.format.example import decode_example, unpack_list, walk_sequences
from tenfold.data.format.image_header import image_format
from tenfold.data.format.manifest import LABEL, Feature, Manifest, Split
from tenfold.data.format.tfrecord import FOOTER_BYTES, Frame, ReadAt, RecordError, read_frame
from tenfold.data.storage.folder import Folder
from tenfold.data.storage.open_folder import open_folder

_TYPES: Final = {"bytes": "tf.string", "image": "tf.string", "float": "tf.float32"}
_SHOWN_VALUES: Final = 6
# Reads of a damaged record before it counts as damaged in storage, not on the way.
MAX_READS: Final = 3


@dataclass(frozen=True)
class Sample:
    """One record of a shard; `values` maps feature names to (kind, flat list of values)."""

    shard: str
    index: int
    values: dict[str, tuple[str, list[Any]]]


def first_records(path: str, split: Split, count: int) -> Iterator[Sample]:
    """Yield the first `count` records of a split of the data set at `path`.

    Raises:
      JobError: a shard is missing or damaged.
    """
    folder = open_folder(path)
    for shard in split.shards:
        if count <= 0:
            return
        for index, payload in enumerate(_payloads(folder, shard.name, min(count, shard.records))):
            yield Sample(shard.name, index, decode_example(payload) | _sequences(payload))
        count -= shard.records


def _sequences(payload: bytes) -> dict[str, tuple[str, list[Any]]]:
    """Return the sequences of a SequenceExample, the values of all steps in a row."""
    found = {}
    for name, steps in walk_sequences(payload):
        kind = steps[0][0] if steps else "bytes"
        found[name] = (kind, [v for step, packed in steps for v in unpack_list(step, packed)])
    return found


def _payloads(folder: Folder, name: str, count: int) -> Iterator[bytes]:
    """Yield the first `count` payloads of a shard, reading no more than those."""
    try:
        offset, size = 0, folder.sizes().get(name, 0)
        for index in range(count):
            frame = _sound_frame(folder, name, index=index, offset=offset, size=size)
            yield frame.payload
            offset = frame.end
    except (RecordError, OSError) as error:
        raise JobError(
            f"{folder.path}/{name}: {error}: run 'tenfold verify' to list all damage"
        ) from error


def _sound_frame(folder: Folder, name: str, *, index: int, offset: int, size: int) -> Frame:
    """Return one frame, checked; read again if damaged, as ranges may be damaged on the way."""
    for attempt in range(MAX_READS):
        try:
            frame = read_frame(_range_reader(folder, name), size, index=index, offset=offset)
            frame.check()
            return frame
        except RecordError:
            if attempt == MAX_READS - 1:
                raise
    raise AssertionError("the last attempt returns or raises")


def _range_reader(folder: Folder, name: str) -> ReadAt:
    """Return a reader of one file; each request also fetches the footer that comes next."""
    begin, data = 0, b""

    def read(offset: int, length: int) -> bytes:
        nonlocal begin, data
        if not begin <= offset <= offset + length <= begin + len(data):
            begin, data = offset, folder.read_range(name, offset, length + FOOTER_BYTES)
        return data[offset - begin :][:length]

    return read


def show_sample(sample: Sample, manifest: Manifest) -> str:
    """Return one line that shows a record."""
    parts = [
        f"{name}={_show_values(name, kind, values, manifest)}"
        for name, (kind, values) in sample.values.items()
    ]
    return f"{sample.shard}[{sample.index}] " + ", ".join(parts)


def _show_values(name: str, kind: str, values: list[Any], manifest: Manifest) -> str:
    if name == LABEL and kind == "int64" and len(values) == 1:
        return show_label(values[0], manifest)
    shown = [_show_bytes(v) if kind == "bytes" else f"{v:.6g}" for v in values[:_SHOWN_VALUES]]
    if len(values) == 1:
        return shown[0]
    more = f" … of {len(values):,}" if len(values) > _SHOWN_VALUES else ""
    return f"[{' '.join(shown)}{more}]"


def show_label(label: int, manifest: Manifest) -> str:
    """Return a class as ``3 'cats'``, or as its number if it has no name."""
    names = manifest.label_names
    return f"{label} '{names[label]}'" if 0 <= label < len(names) else str(label)


def _show_bytes(value: bytes) -> str:
    format_name = image_format(value)
    if format_name:
        return f"{format_name.upper()} of {len(value):,} bytes"
    return repr(value if len(value) <= 40 else value[:40] + b"...")


def sample_file_name(sample: Sample, manifest: Manifest, number: int, suffix: str) -> str:
    """Return a file name for a record's image: number, split and class, in safe characters."""
    kind, values = sample.values.get(LABEL, ("", []))
    name = ""
    if kind == "int64" and len(values) == 1:
        has_name = 0 <= values[0] < len(manifest.label_names)
        label = manifest.label_names[values[0]] if has_name else str(values[0])
        name = "-" + "".join(c if c.isalnum() else "_" for c in label)[:40]
    return f"{number:03d}-{sample.shard.split('-')[0]}{name}{suffix}"


def image_of(sample: Sample, manifest: Manifest) -> bytes | None:
    """Return the encoded first image of a record, or None if it has no image."""
    for feature in manifest.features:
        if feature.kind == "image" and feature.name in sample.values:
            return bytes(sample.values[feature.name][1][0])
    return None


def reading_code(path: str, manifest: Manifest) -> str:
    """Return a Python program that reads the shards at `path` with plain `tf.data`."""
    split = manifest.splits[0]
    pattern = os.path.join(path, f"{split.name}-{{:05d}}-of-{len(split.shards):05d}.tfrecord")
    lines = [
        "import tensorflow as tf",
        "",
        f"files = [{pattern!r}.format(i) for i in range({len(split.shards)})]",
        "features = {",
        *(f"    {f.name!r}: {_parser_code(f)}," for f in manifest.features if not f.sequence),
        "}",
        "dataset = tf.data.TFRecordDataset(files)",
        *_parsing_code([f for f in manifest.features if f.sequence]),
    ]
    images = [f.name for f in manifest.features if f.kind == "image"]
    if images:
        lines += [
            "",
            "def decode(example):",
            *(f"    example[{n!r}] = tf.io.decode_image(example[{n!r}], expand_animations=False)"
              for n in images),
            "    return example",
            "",
            "dataset = dataset.map(decode)",
        ]  # fmt: skip
    return "\n".join(lines)


def _parsing_code(sequences: list[Feature]) -> list[str]:
    if not sequences:
        return [
            "dataset = dataset.map(lambda record: tf.io.parse_single_example(record, features))"
        ]
    return [
        "sequences = {",
        *(f"    {f.name!r}: {_step_code(f)}," for f in sequences),
        "}",
        "",
        "def parse(record):",
        "    context, steps = tf.io.parse_single_sequence_example(record, features, sequences)",
        "    return {**context, **steps}",
        "",
        "dataset = dataset.map(parse)",
    ]


def _step_code(feature: Feature) -> str:
    """Return the parser of one sequence: of steps of one shape, or of lists of any length."""
    dtype, inner = _TYPES.get(feature.kind, "tf.int64"), feature.shape[1:]
    if None in inner:
        return f"tf.io.RaggedFeature({dtype})"
    return f"tf.io.FixedLenSequenceFeature({list(inner)}, {dtype})"


def _parser_code(feature: Feature) -> str:
    dtype = _TYPES.get(feature.kind, "tf.int64")
    if not feature.optional and (feature.kind == "image" or None not in feature.shape):
        shape = [] if feature.kind == "image" else list(feature.shape)
        return f"tf.io.FixedLenFeature({shape}, {dtype})"
    return f"tf.io.RaggedFeature({dtype})"
