"""Existing TFRecord files of Examples, and ``tfds:NAME[:SPLIT]``, whose files are TFRecord too.

The scan reads only the headers of the records. Each payload is later read once, checked against
its checksum, and stored unchanged.
"""

import mmap
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tenfold.data.errors import UserError
from tenfold.data.format.example import Features, count_values, unpack_list, walk_example
from tenfold.data.format.manifest import LABEL, Feature
from tenfold.data.format.row_file import RowFile, RowFileWriter
from tenfold.data.format.schema import Schema
from tenfold.data.format.tfrecord import (
    FRAME_BYTES,
    Frame,
    RecordError,
    bytes_reader,
    fingerprint64,
    read_frame,
    read_frames,
)
from tenfold.data.planning.layout import SourceStats
from tenfold.data.sources.base import Encoded, SourceChanged, UnusableRecord
from tenfold.data.sources.features import feature_of
from tenfold.data.sources.scanned_files import read_error
from tenfold.data.units import plural


def scan_tfds(spec: str, scratch: Path) -> "TFRecordSource":
    """Scan a prepared data set of TensorFlow Datasets: one split, or all.

    Args:
      spec: ``tfds:NAME[:SPLIT]``; NAME may be the folder of a data set.
      scratch: Local folder for the result of the scan.

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
    files = [str(path) for name in chosen for path in splits[name].filepaths]
    if not all("tfrecord" in Path(file).name for file in files):
        raise UserError(f"source '{spec}' is stored as {builder.info.file_format}, not TFRecord")
    return scan_tfrecords(
        files,
        scratch,
        known=_array_features(_flat(builder.info.features.get_serialized_info())),
        label_names=_label_names(builder.info.features),
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


def _label_names(features: Any) -> tuple[str, ...]:
    label = dict(features.items()).get(LABEL)
    return tuple(getattr(label, "names", ()) or ())


# Number of the file, offset of the record, length of its payload in bytes.
_ROW: Final = "<IQQ"


class TFRecordSource:
    """The records of `files`, in order; each process opens the files on first use.

    `known` are features whose shapes are known from elsewhere: Examples store flat lists.
    """

    notes: tuple[str, ...] = ()

    def __init__(
        self,
        files: Sequence[str],
        stats: SourceStats,
        rows: RowFile,
        known: Schema = (),
    ) -> None:
        self.stats = stats
        self._files = tuple(files)
        self._rows = rows
        self._known = {feature.name: feature for feature in known}
        self._open: dict[int, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_open": {}}

    def encoded(self, index: int) -> Encoded:
        """Return the record unchanged; see `Source`."""
        payload = self._payload(index)
        schema: list[Feature] = []
        label = None
        try:
            for name, kind, packed in walk_example(payload):
                count = count_values(kind, packed)
                schema.append(self._feature(name, kind, count, packed))
                if name == LABEL and kind == "int64" and count == 1:
                    label = unpack_list(kind, packed)[0]
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
        """Return the record's values, reshaped if their shapes are known; see `Source`."""
        payload = self._payload(index)
        try:
            return {
                name: self._value(name, unpack_list(kind, packed))
                for name, kind, packed in walk_example(payload)
            }
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
        return f"{self._files[file]}: record at byte {offset:,}"

    def _payload(self, index: int) -> bytes:
        file, offset, length = self._rows[index]
        try:
            if file not in self._open:
                self._open[file] = os.open(self._files[file], os.O_RDONLY)
            data = os.pread(self._open[file], length + FRAME_BYTES, offset)
        except OSError as error:
            raise read_error(self._files[file], error) from error
        return self._checked(data, file, offset, length)

    def _checked(self, data: bytes, file: int, offset: int, length: int) -> bytes:
        """Return the payload of the frame `data`; the scan found `length` bytes in it."""
        try:
            frame = read_frame(bytes_reader(data), len(data))
        except RecordError:
            frame = None
        if frame is None or frame.length != length:
            raise SourceChanged(f"{self._files[file]} has changed since the source was scanned")
        if error := frame.damage():
            raise UnusableRecord(error.problem)
        return frame.payload


def scan_tfrecords(
    files: Sequence[str],
    scratch: Path,
    *,
    known: Schema = (),
    label_names: tuple[str, ...] = (),
    fingerprint: str = "",
) -> TFRecordSource:
    """Scan the headers of all records in `files`.

    Args:
      files: Local TFRecord files of Examples.
      scratch: Local folder for the result of the scan.
      known: Features whose shapes are known.
      label_names: Names of the classes.
      fingerprint: Identifies the content; by default made of paths, sizes and mtimes.

    Raises:
      UserError: a file is not a TFRecord file or is cut, or there are no records.
    """
    examples = total_bytes = max_bytes = identity = 0
    path = scratch / "tfrecords.rows"
    with RowFileWriter(path, _ROW) as rows:
        for number, file in enumerate(files):
            status = os.stat(file)
            identity += fingerprint64(f"{file}\0{status.st_size}\0{status.st_mtime_ns}".encode())
            for frame in _scan_frames(file):
                rows.append(number, frame.offset, frame.length)
                examples += 1
                total_bytes += frame.end - frame.offset
                max_bytes = max(max_bytes, frame.end - frame.offset)
    if not examples:
        raise UserError(f"source '{files[0]}': {plural(len(files), 'file')} without a record")
    stats = SourceStats(
        num_examples=examples,
        total_bytes=total_bytes,
        max_record_bytes=max_bytes,
        label_names=label_names,
        fingerprint=fingerprint or f"tfrecords-{identity % 2**64:016x}",
    )
    return TFRecordSource(files, stats, RowFile(path, _ROW), known)


def _scan_frames(path: str) -> Iterator[Frame]:
    """Yield the frames of a file, without their payloads.

    Raises:
      UserError: the file is not a sound TFRecord file.
    """
    size = os.path.getsize(path)
    if not size:  # which cannot be mapped
        return
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            yield from read_frames(bytes_reader(data), size, payload=False)
        except RecordError as error:
            raise UserError(
                f"source file '{path}': {error}: it is not a TFRecord file, or it is damaged"
            ) from None


def features_from_manifest(folder: str) -> tuple[Schema, tuple[str, ...]]:
    """Return the features and label names of the manifest in `folder`; empty without one."""
    from tenfold.data.format.manifest import MANIFEST_NAME
    from tenfold.data.storage.read_manifest import read_manifest

    if not os.path.exists(os.path.join(folder, MANIFEST_NAME)):
        return (), ()
    manifest = read_manifest(folder)
    # Each image is inspected itself: the manifest's shape, over all shards, may be less specific.
    known = tuple(f for f in manifest.features if f.kind != "image")
    return known, manifest.label_names


def _array_features(features: Mapping[str, Any]) -> Schema:
    """Return the numeric features that are not vectors, from TFDS's flat TensorInfos."""
    found: list[Feature] = []
    for name, info in features.items():
        code = str(getattr(info.np_dtype, "kind", "O"))
        kind = {"i": "int64", "u": "int64", "b": "int64", "f": "float"}.get(code, "bytes")
        if kind != "bytes" and len(info.shape) != 1:
            found.append(Feature(name, kind, tuple(info.shape)))
    return tuple(found)
