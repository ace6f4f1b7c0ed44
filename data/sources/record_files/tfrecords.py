"""Existing TFRecord files of Examples, and ``tfds:NAME[:SPLIT]``, whose files are TFRecord too.

The scan reads the headers of the records, and their labels. Each payload is later read once,
checked against its checksum, and stored unchanged, but for a label that is no class index.
"""

import mmap
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from tenfold.data.errors import UserError
from tenfold.data.format.example import (
    Features,
    count_values,
    feature_entry,
    to_list,
    unpack_list,
    walk_example,
    walk_sequences,
)
from tenfold.data.format.example_view import find_feature, replace_feature
from tenfold.data.format.manifest import LABEL, Feature
from tenfold.data.format.row_file import RowFile, RowFileWriter
from tenfold.data.format.schema import Schema
from tenfold.data.format.tfrecord import (
    FRAME_BYTES,
    HEADER_BYTES,
    Frame,
    RecordError,
    bytes_reader,
    fingerprint64,
    frame_header,
    read_frame,
    read_frames,
)
from tenfold.data.planning.layout import SourceStats
from tenfold.data.sources.base import Encoded, SourceChanged, SourceOptions, UnusableRecord
from tenfold.data.sources.class_labels import (
    NO_CLASSES,
    DistinctLabels,
    Label,
    LabelMap,
    plain_label,
)
from tenfold.data.sources.features import feature_of
from tenfold.data.sources.record_files.file_splits import own_splits
from tenfold.data.sources.record_files.unpacked import is_gzip, is_zlib, unpack_files
from tenfold.data.sources.scanned_files import read_error
from tenfold.data.units import plural


def scan_tfds(spec: str, scratch: Path, options: SourceOptions) -> "TFRecordSource":
    """Scan a prepared data set of TensorFlow Datasets: one split, or all.

    Args:
      spec: ``tfds:NAME[:SPLIT]``; NAME may be the folder of a data set.
      scratch: Local folder for the result of the scan.
      options: The classes, if the user gives them.

    Raises:
      UserError: TFDS is missing, or there is no such data set in TFRecord files.
    """
    _, _, name = spec.partition(":")
    name, _, split = name.partition(":")
    builder = _builder(spec, name)
    splits = builder.info.splits
    chosen = [split] if split else sorted(splits)
    if not splits or any(name not in splits for name in chosen):
        existing = ", ".join(sorted(splits)) or "none: it is not prepared (tfds build)"
        raise UserError(f"source '{spec}': no such split; there are: {existing}")
    paths = {name: [str(path) for path in splits[name].filepaths] for name in chosen}
    files = [path for found in paths.values() for path in found]
    if not all("tfrecord" in Path(file).name for file in files):
        raise UserError(f"source '{spec}' is stored as {builder.info.file_format}, not TFRecord")
    return scan_tfrecords(
        files,
        scratch,
        known=_array_features(_flat(builder.info.features.get_serialized_info())),
        labels=_known_classes(builder.info.features),
        classes=options.classes,
        splits=[name for name, found in paths.items() for _ in found],
    )


def _builder(spec: str, name: str) -> Any:
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise UserError(f"source '{spec}' needs TFDS: pip install 'tenfold[tfds]'") from error
    try:
        if Path(name).is_dir():
            return tfds.builder_from_directory(name)
        return tfds.builder(name)
    except Exception as error:
        raise UserError(f"source '{spec}': {type(error).__name__}: {error}") from error


def _flat(info: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested feature infos by the names under which TFDS stores them: ``a/b``."""
    if not isinstance(info, dict):
        return {prefix: info}
    flat: dict[str, Any] = {}
    for name, value in info.items():
        flat |= _flat(value, f"{prefix}/{name}" if prefix else name)
    return flat


def _known_classes(features: Any) -> LabelMap | None:
    """Return the classes of a ClassLabel, whose labels are indices; None for other labels."""
    label: Any = dict(features.items()).get(LABEL)
    if not hasattr(label, "num_classes"):
        return None
    names = tuple(getattr(label, "names", ()) or ())
    return LabelMap(names=names, num_classes=int(label.num_classes or len(names)))


# Number of the file, offset of the record, length of its payload in bytes.
_ROW: Final = "<IQQ"


class TFRecordSource:
    """The records of `files`, in order; each process opens the files on first use.

    `known` are features whose shapes are known from elsewhere: Examples store flat lists.
    `labels` maps the labels; `shown` names the files in messages, where `files` are copies.
    """

    def __init__(
        self,
        files: Sequence[str],
        stats: SourceStats,
        rows: RowFile,
        known: Schema = (),
        *,
        labels: LabelMap = NO_CLASSES,
        shown: Sequence[str] = (),
        splits: Sequence[str] = (),
    ) -> None:
        self.stats = stats
        self.splits = own_splits(shown or files, rows, splits=splits)
        self.notes: tuple[str, ...] = (labels.note,) if labels.note else ()
        self._files = tuple(files)
        self._shown = tuple(shown or files)
        self._rows = rows
        self._known = {feature.name: feature for feature in known}
        self._labels = labels
        self._open: dict[int, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_open": {}}

    def encoded(self, index: int) -> Encoded:
        """Return the record, unchanged but for a label that is mapped; see `Source`."""
        payload = self._payload(index)
        schema: list[Feature] = []
        label = None
        try:
            for name, kind, packed in walk_example(payload):
                count = count_values(kind, packed)
                schema.append(self._feature(name, kind, count, packed))
                if name == LABEL and kind == "int64" and count == 1:
                    label = unpack_list(kind, packed)[0]
            for name, steps in walk_sequences(payload):
                schema.append(_sequence_feature(name, steps))
            if len({feature.name for feature in schema}) < len(schema):
                raise ValueError("its context and its sequences have a feature of one name")
        except ValueError as error:
            raise UnusableRecord(str(error)) from error
        return Encoded(payload, tuple(sorted(schema, key=lambda feature: feature.name)), label)

    def _feature(self, name: str, kind: str, count: int, packed: bytes) -> Feature:
        known = self._known.get(name)
        if known is not None and known.kind == kind:
            return known
        if kind == "bytes" and count == 1:
            return feature_of(name, kind, (), unpack_list(kind, packed)[0])
        return Feature(name, kind, () if count == 1 else (count,))

    def features(self, index: int) -> Features:
        """Return the record's values, reshaped if their shapes are known; see `Source`.

        Raises:
          UserError: the record is a SequenceExample, whose sequences would be lost.
        """
        payload = self._payload(index)
        try:
            sequences = [name for name, _ in walk_sequences(payload)]
            if sequences:
                raise UserError(
                    f"{self.name(index)}: a SequenceExample, with the sequence "
                    f"'{sequences[0]}', cannot be transformed yet: write it without --transform, "
                    "or read it with a source of your own, module:function"
                )
            return {
                name: self._value(name, unpack_list(kind, packed))
                for name, kind, packed in walk_example(payload)
            }
        except UserError:
            raise
        except ValueError as error:
            raise UnusableRecord(str(error)) from error

    def _value(self, name: str, values: list[Any]) -> Any:
        known = self._known.get(name)
        if known is None or len(known.shape) < 2 or known.kind == "image":
            return values[0] if len(values) == 1 and not (known and known.shape) else values
        import numpy as np

        return np.array(values).reshape([-1 if size is None else size for size in known.shape])

    def name(self, index: int) -> str:
        """Return the file and the offset of the record."""
        file, offset, _ = self._rows[index]
        unpacked = " when unpacked" if self._shown[file] != self._files[file] else ""
        return f"{self._shown[file]}: record at byte {offset:,}{unpacked}"

    def _payload(self, index: int) -> bytes:
        file, offset, length = self._rows[index]
        try:
            if file not in self._open:
                self._open[file] = os.open(self._files[file], os.O_RDONLY)
            data = os.pread(self._open[file], length + FRAME_BYTES, offset)
        except OSError as error:
            raise read_error(self._shown[file], error) from error
        return self._mapped(self._checked(data, file, offset, length))

    def _mapped(self, payload: bytes) -> bytes:
        """Return the record with its label mapped."""
        if not self._labels.indices:
            return payload
        try:
            label = _label_of(memoryview(payload))
            if label is None:
                return payload
            index = self._labels.stored(label)
            return replace_feature(payload, LABEL, _label_entry(index))
        except ValueError as error:
            raise UnusableRecord(str(error)) from error

    def _checked(self, data: bytes, file: int, offset: int, length: int) -> bytes:
        """Return the payload of the frame `data`; the scan found `length` bytes in it."""
        try:
            frame = read_frame(bytes_reader(data), len(data))
        except RecordError:
            frame = None
        if frame is None or frame.length != length:
            raise SourceChanged(f"{self._shown[file]} has changed since the source was scanned")
        if error := frame.damage():
            raise UnusableRecord(error.problem)
        return frame.payload


def _sequence_feature(name: str, steps: Sequence[tuple[str, bytes]]) -> Feature:
    """Return the schema of one sequence of a SequenceExample; steps without values count."""
    kinds = {kind for kind, packed in steps if packed}
    if len(kinds) > 1:
        raise ValueError(f"the steps of its sequence '{name}' are of the kinds {sorted(kinds)}")
    kind = kinds.pop() if kinds else "bytes"
    counts = {count_values(kind, packed) if packed else 0 for _, packed in steps}
    inner = () if counts <= {1} else (counts.pop() if len(counts) == 1 else None,)
    return Feature(name, kind, (len(steps), *inner), sequence=True)


def _label_of(payload: memoryview) -> Label | None:
    """Return the label of a record if it is one text or whole number, else None."""
    found = find_feature(payload, LABEL)
    if found is None or found[0] == "float" or count_values(*found) != 1:
        return None
    return plain_label(unpack_list(*found)[0])


def _label_entry(index: int) -> bytes:
    return feature_entry(LABEL, *to_list(LABEL, index)[:2])


def scan_tfrecords(
    files: Sequence[str],
    scratch: Path,
    *,
    known: Schema = (),
    classes: tuple[str, ...] | None = None,
    labels: LabelMap | None = None,
    fingerprint: str = "",
    splits: Sequence[str] = (),
) -> TFRecordSource:
    """Scan the headers of all records in `files`, and their labels unless `labels` are known.

    Args:
      files: Local TFRecord files of Examples or SequenceExamples, plain, or GZIP or ZLIB streams.
      scratch: Local folder for the result of the scan, and for unpacked files.
      known: Features whose shapes are known.
      classes: The classes that the user gave; see `map_labels`.
      labels: The classes of the labels; None determines them.
      fingerprint: Identifies the content; by default made of paths, sizes and mtimes.
      splits: The split of each file, if it is known; by default found in the names.

    Raises:
      UserError: a file is not a TFRecord file or is cut, there are no records, or a label is not
        among `classes`.
    """
    local = unpack_files(files, scratch, is_packed=_is_packed)
    scan = _Scan(DistinctLabels() if labels is None or classes is not None else None)
    path = scratch / "tfrecords.rows"
    with RowFileWriter(path, _ROW) as rows:
        for number, (file, unpacked) in enumerate(zip(files, local, strict=True)):
            scan.identify(file)
            for frame in scan.frames(unpacked, file):
                rows.append(number, frame.offset, frame.length)
    if not scan.examples:
        raise UserError(f"source '{files[0]}': {plural(len(files), 'file')} without a record")
    if scan.labels is not None:
        labels = scan.labels.mapping(classes)
        scan.total_bytes += scan.labels.growth(labels)
    assert labels is not None
    chosen = "" if classes is None else f"-{fingerprint64(repr(classes).encode()):016x}"
    stats = SourceStats(
        num_examples=scan.examples,
        total_bytes=scan.total_bytes,
        max_record_bytes=scan.max_bytes,
        label_names=labels.names,
        num_classes=labels.num_classes,
        fingerprint=(fingerprint or f"tfrecords-{scan.identity % 2**64:016x}") + chosen,
    )
    rows_file = RowFile(path, _ROW)
    return TFRecordSource(
        local, stats, rows_file, known, labels=labels, shown=files, splits=splits
    )


class _Scan:
    """Sums over the frames of all files; `labels` collects the distinct labels, None for none."""

    def __init__(self, labels: DistinctLabels | None) -> None:
        self.examples = self.total_bytes = self.max_bytes = self.identity = 0
        self.labels = labels

    def identify(self, file: str) -> None:
        """Add a file's path, size and mtime to the identity of the source."""
        status = os.stat(file)
        text = f"{file}\0{status.st_size}\0{status.st_mtime_ns}"
        self.identity += fingerprint64(text.encode())

    def frames(self, path: str, shown: str) -> Iterator[Frame]:
        """Yield the frames of a file, without their payloads.

        Raises:
          UserError: the file, called `shown`, is not a sound TFRecord file.
        """
        size = os.path.getsize(path)
        if not size:  # which cannot be mapped
            return
        with (
            open(path, "rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
            memoryview(data) as view,
        ):
            try:
                for frame in read_frames(bytes_reader(data), size, payload=False):
                    self._add(frame, view)
                    yield frame
            except RecordError as error:
                raise UserError(
                    f"source file '{shown}': {error}: it is not a TFRecord file, or it is damaged"
                ) from None

    def _add(self, frame: Frame, view: memoryview) -> None:
        self.examples += 1
        self.total_bytes += frame.end - frame.offset
        self.max_bytes = max(self.max_bytes, frame.end - frame.offset)
        if self.labels is None:
            return
        begin = frame.offset + HEADER_BYTES
        with view[begin : begin + frame.length] as payload, suppress(ValueError):
            # A record that is no Example is found, and named, when it is written.
            label = _label_of(payload)
            if label is not None:
                self.labels.add(label)


def _is_packed(head: bytes) -> bool:
    """Whether a file begins like a compressed stream, and not like a TFRecord file."""
    plain = len(head) == HEADER_BYTES and frame_header(int.from_bytes(head[:8], "little")) == head
    return not plain and (is_gzip(head) or is_zlib(head))


def features_from_manifest(folder: str) -> tuple[Schema, LabelMap | None]:
    """Return the features and classes of the manifest in `folder`; () and None without one."""
    from tenfold.data.format.manifest import MANIFEST_NAME
    from tenfold.data.storage.read_manifest import read_manifest

    if not os.path.exists(os.path.join(folder, MANIFEST_NAME)):
        return (), None
    manifest = read_manifest(folder)
    # Each image is inspected itself: the manifest's shape, over all shards, may be less specific.
    known = tuple(f for f in manifest.features if f.kind != "image" and not f.sequence)
    return known, LabelMap(names=manifest.label_names, num_classes=manifest.num_classes)


def _array_features(features: Mapping[str, Any]) -> Schema:
    """Return the numeric features that are not vectors, from TFDS's flat TensorInfos."""
    found: list[Feature] = []
    for name, info in features.items():
        code = str(getattr(info.np_dtype, "kind", "O"))
        kind = {"i": "int64", "u": "int64", "b": "int64", "f": "float"}.get(code, "bytes")
        if kind != "bytes" and len(info.shape) != 1:
            found.append(Feature(name, kind, tuple(info.shape)))
    return tuple(found)
