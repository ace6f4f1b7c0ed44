"""The manifest: the description of a folder of shards, in JSON (docs/manifest.md).

A write publishes it last: a folder without a manifest is no data set. A manifest may come from
an untrusted place, so reading one checks everything. In particular, shard names are formatted and
parsed only here, so that none can point outside of the manifest's folder.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from tenfold.data.errors import UserError
from tenfold.data.format.manifest_fields import (
    MAX_MANIFEST_BYTES,
    ManifestFields,
    ShardFields,
    SplitFields,
    one_line,
    parse_fields,
    parse_hex,
    parse_json_object,
)
from tenfold.data.format.statistics.feature_statistics import (
    SplitStatistics,
    check_statistics,
    statistics_to_json,
)

MANIFEST_NAME: Final = "manifest.json"
# The list of the records that a write left out, as JSON lines.
QUARANTINE_NAME: Final = "quarantine.jsonl"
FORMAT: Final = "tenfold-shards"
VERSION: Final = 1
KINDS: Final = ("image", "bytes", "float", "int64")
IMAGE: Final = "image"
LABEL: Final = "label"
# Labels without names that reach beyond this are numbers, not classes: they are not counted.
MAX_CLASSES: Final = 10_000

# The frame around a record: TFRecord's length and two checksums.
_FRAME_BYTES: Final = 16
_MAX_BYTES: Final = 2**63
_MAX_DIMENSIONS: Final = 32
_MAX_TEXT: Final = 4096
_DAMAGED: Final = "the manifest is damaged or foreign"
_SPLIT_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_SHARD_NAME = re.compile(r"([A-Za-z][A-Za-z0-9_]*)-([0-9]{5,})-of-([0-9]{5,})\.tfrecord")


def check_split_name(name: str) -> str:
    """Check and return `name`.

    Raises:
      UserError: `name` is not a letter followed by letters, digits and underscores.
    """
    if not _SPLIT_NAME.fullmatch(name):
        raise UserError(f"split name '{name}' must be a letter, then letters, digits or '_'")
    return name


def shard_name(split: str, index: int, num_shards: int) -> str:
    """Return ``train-00007-of-00040.tfrecord``, as TFDS names shards too."""
    return f"{split}-{index:05d}-of-{num_shards:05d}.tfrecord"


def parse_shard_name(name: str) -> tuple[str, int, int] | None:
    """Return split, index and number of shards of a shard's name; None for other names."""
    match = _SHARD_NAME.fullmatch(name)
    return (match[1], int(match[2]), int(match[3])) if match else None


@dataclass(frozen=True)
class Feature:
    """One feature of every Example.

    Attributes:
      name: the feature's name.
      kind: ``bytes``, ``float`` or ``int64`` as in `tf.train.Feature`, or ``image``: the bytes of
        one encoded image.
      shape: the shape of the value, () for a scalar; for an image (height, width, channels) of the
        decoded image. None stands for a dimension that differs between records.
      optional: whether some records lack the feature.
      sequence: whether this is a list of features of a `tf.train.SequenceExample`; the first
        dimension of its shape counts the steps.
    """

    name: str
    kind: str
    shape: tuple[int | None, ...] = ()
    optional: bool = False
    sequence: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UserError(f"feature '{self.name}' is of kind '{self.kind}', not one of {KINDS}")
        sizes = [size for size in self.shape if size is not None]
        image = self.kind == IMAGE and not self.sequence
        sound = len(self.shape) == 3 if image else len(self.shape) <= _MAX_DIMENSIONS
        if image and len(self.shape) == 3:
            sound = self.shape[2] in (None, 1, 2, 3, 4)
        if self.sequence and not self.shape:
            sound = False
        if not sound or not all(int(image) <= size < 2**31 for size in sizes):
            raise UserError(
                f"feature '{self.name}' of kind '{self.kind}' cannot have the shape "
                f"{list(self.shape)}: {_DAMAGED}"
            )


@dataclass(frozen=True)
class ShardInfo:
    """One shard.

    Attributes:
      name: the name of the file.
      records: the number of records.
      bytes: the size of the file.
      crc32c: the CRC32C of the whole file.
      fingerprint: the sum modulo 2**64 of FarmHash Fingerprint64 over the payloads of the
        records; `tf.fingerprint` computes the same hash.
    """

    name: str
    records: int
    bytes: int
    crc32c: int
    fingerprint: int


def _check_shard(shard: ShardInfo) -> None:
    empty = shard.records == shard.bytes == shard.crc32c == shard.fingerprint == 0
    room = shard.bytes // _FRAME_BYTES
    if not empty and not (0 < shard.records <= room and shard.bytes < _MAX_BYTES):
        raise UserError(
            f"shard '{shard.name}' cannot hold {shard.records} records in "
            f"{shard.bytes} bytes: {_DAMAGED}"
        )
    if not (0 <= shard.crc32c < 2**32 and 0 <= shard.fingerprint < 2**64):
        raise UserError(f"shard '{shard.name}' has a checksum out of range: {_DAMAGED}")


@dataclass(frozen=True)
class Split:
    """One split of a data set.

    Attributes:
      name: the split's name.
      shards: its shards, in order; shard i belongs to lane i % num_lanes.
      label_counts: the number of records of each class; () if the data has no classes.
      statistics: the values of its features; None if they were not collected.
    """

    name: str
    shards: tuple[ShardInfo, ...]
    label_counts: tuple[int, ...] = ()
    statistics: SplitStatistics | None = None

    def __post_init__(self) -> None:
        check_split_name(self.name)
        total = len(self.shards)
        for index, shard in enumerate(self.shards):
            if shard.name != shard_name(self.name, index, total):
                raise UserError(
                    f"shard '{shard.name}' should be named "
                    f"'{shard_name(self.name, index, total)}': {_DAMAGED}"
                )
            _check_shard(shard)

    @property
    def num_records(self) -> int:
        """Records over all shards."""
        return sum(shard.records for shard in self.shards)

    @property
    def num_bytes(self) -> int:
        """Bytes over all shards."""
        return sum(shard.bytes for shard in self.shards)

    @property
    def fingerprint(self) -> int:
        """Sum modulo 2**64 of the fingerprints of all records."""
        return sum(shard.fingerprint for shard in self.shards) % 2**64


@dataclass(frozen=True)
class SharedRecords:
    """The number of records of `split` that the split `other` holds too, byte for byte."""

    split: str
    other: str
    records: int


def _check_unique(what: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise UserError(f"manifest: two {what}s are called '{name}'")
        seen.add(name)


@dataclass(frozen=True)
class Manifest:
    """The description of a folder of shards.

    Attributes:
      num_lanes: the number of lanes; it divides the number of shards of each split.
      worker_counts: the numbers of workers that the layout was planned for.
      features: the features of every record.
      splits: the splits.
      label_names: the name of each class; () if the classes have no names.
      source_fingerprint: identifies the source; manifests that agree in this and the next two
        fields describe equal shards.
      transform_key: identifies the transforms; "" for none.
      layout_key: identifies the layout.
      quarantined: the number of broken records of the source that were left out.
      notes: how values of the source were converted, and what it left out; one line each.
      left_out: the number of records of the source that transforms chose to leave out.
      shared_records: the pairs of splits that have equal records.
    """

    num_lanes: int
    worker_counts: tuple[int, ...]
    features: tuple[Feature, ...]
    splits: tuple[Split, ...]
    label_names: tuple[str, ...] = ()
    source_fingerprint: str = ""
    transform_key: str = ""
    layout_key: str = ""
    quarantined: int = 0
    notes: tuple[str, ...] = ()
    left_out: int = 0
    shared_records: tuple[SharedRecords, ...] = ()

    def __post_init__(self) -> None:
        if self.num_lanes < 1:
            raise UserError(f"manifest: num_lanes is {self.num_lanes}, it must be at least 1")
        counts = self.worker_counts
        if not counts or list(counts) != sorted({count for count in counts if count > 0}):
            raise UserError(
                f"manifest: worker_counts is {list(counts)}, but must ascend from 1 or more"
            )
        if counts[-1] > self.num_lanes:
            raise UserError(
                f"manifest: num_lanes is {self.num_lanes}, but each of {counts[-1]} workers "
                "(worker_counts) needs a lane"
            )
        for name in ("quarantined", "left_out"):
            if not 0 <= getattr(self, name) < _MAX_BYTES:
                raise UserError(f"manifest: {name} is {getattr(self, name)}, which is no count")
        _check_unique("feature", (feature.name for feature in self.features))
        _check_unique("split", (split.name for split in self.splits))
        for split in self.splits:
            if not split.shards or len(split.shards) % self.num_lanes:
                raise UserError(
                    f"manifest: split '{split.name}' has {len(split.shards)} shards, "
                    f"not a multiple of its {self.num_lanes} lanes"
                )
        for shared in self.shared_records:
            if not (self.has_split(shared.split) and self.has_split(shared.other)) or not (
                0 < shared.records < _MAX_BYTES
            ):
                raise UserError(
                    f"manifest: shared_records names {shared.records} records of "
                    f"'{shared.split}' and '{shared.other}': {_DAMAGED}"
                )

    @property
    def num_classes(self) -> int:
        """The number of classes: those with names, or those that occur; 0 without classes."""
        counted = (len(split.label_counts) for split in self.splits)
        return max([len(self.label_names), *counted])

    def split(self, name: str) -> Split:
        """Return the split called `name`.

        Raises:
          UserError: there is no such split; the message lists the splits.
        """
        for split in self.splits:
            if split.name == name:
                return split
        names = ", ".join(split.name for split in self.splits)
        raise UserError(f"there is no split '{name}'; the shards have: {names}")

    def has_split(self, name: str) -> bool:
        """Return True if there is a split called `name`."""
        return any(split.name == name for split in self.splits)

    def feature(self, name: str) -> Feature | None:
        """Return the feature called `name`, or None."""
        return next((feature for feature in self.features if feature.name == name), None)


def manifest_to_json(manifest: Manifest) -> str:
    """Return the manifest as JSON; equal manifests give equal text."""
    document = {
        "format": FORMAT,
        "version": VERSION,
        "num_lanes": manifest.num_lanes,
        "worker_counts": list(manifest.worker_counts),
        "features": [_feature_to_json(feature) for feature in manifest.features],
        "label_names": list(manifest.label_names),
        "source_fingerprint": manifest.source_fingerprint,
        "transform_key": manifest.transform_key,
        "layout_key": manifest.layout_key,
        "quarantined": manifest.quarantined,
        **({"notes": list(manifest.notes)} if manifest.notes else {}),
        # Only where there is something to tell: earlier versions refuse unknown fields.
        **({"left_out": manifest.left_out} if manifest.left_out else {}),
        **(
            {"shared_records": [vars(shared) for shared in manifest.shared_records]}
            if manifest.shared_records
            else {}
        ),
        "splits": [
            {
                "name": split.name,
                "records": split.num_records,
                "bytes": split.num_bytes,
                "fingerprint": f"{split.fingerprint:016x}",
                "label_counts": list(split.label_counts),
                **_statistics(split),
                "shards": [_shard_to_json(shard) for shard in split.shards],
            }
            for split in manifest.splits
        ],
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _statistics(split: Split) -> dict[str, Any]:
    found = split.statistics
    return {} if found is None else {"statistics": statistics_to_json(found)}


def _feature_to_json(feature: Feature) -> dict[str, Any]:
    document = {"name": feature.name, "kind": feature.kind, "shape": list(feature.shape)}
    flags = {name: True for name in ("optional", "sequence") if getattr(feature, name)}
    return {**document, **flags}


def _shard_to_json(shard: ShardInfo) -> dict[str, Any]:
    return {
        "name": shard.name,
        "records": shard.records,
        "bytes": shard.bytes,
        "crc32c": f"{shard.crc32c:08x}",
        "fingerprint": f"{shard.fingerprint:016x}",
    }


def manifest_from_json(
    text: str, *, where: str = MANIFEST_NAME, lost_records: int = 0
) -> Manifest:
    """Return the manifest in the JSON `text`, each field checked against all others.

    Args:
      text: the JSON document.
      where: the name of its file, for messages.
      lost_records: the number of records that may have been dropped since they were counted in
        ``label_counts``, as by `salvage_shards`.

    Raises:
      UserError: the text is no manifest of this version, or the manifest is damaged.
    """
    try:
        if len(text) > MAX_MANIFEST_BYTES:
            raise UserError(f"it is larger than {MAX_MANIFEST_BYTES:,} bytes: {_DAMAGED}")
        document = parse_json_object(text)
        _check_version(document)
        fields = parse_fields(document)
        manifest = _from_fields(fields)
        for split, found in zip(manifest.splits, fields.splits, strict=True):
            _check_totals(split, found)
            _check_labels(manifest, split, lost_records)
            if split.statistics is not None:
                names = [feature.name for feature in manifest.features]
                check_statistics(split.statistics, names, split.num_records + lost_records)
        return manifest
    except UserError as error:
        raise UserError(one_line(f"{where}: {error}")) from error
    except ValueError as error:
        raise UserError(
            one_line(f"{where} is not a manifest ({error})")
            + ": run 'tenfold write' to make the shards again"
        ) from error


def _check_version(document: Any) -> None:
    if not isinstance(document, dict):
        raise ValueError("it is not a JSON object")
    found = document.get("format"), document.get("version")
    if found != (FORMAT, VERSION):
        raise UserError(
            f"it is {found[0]!r:.40} version {found[1]!r:.40}, "
            f"this tenfold reads {FORMAT} version {VERSION}"
        )


def _from_fields(fields: ManifestFields) -> Manifest:
    keys = (fields.source_fingerprint, fields.transform_key, fields.layout_key)
    names = [feature.name for feature in fields.features]
    for text in (*keys, *names, *fields.label_names, *fields.notes):
        if len(text) > _MAX_TEXT:
            raise ValueError(f"{text[:20]!r}… is longer than {_MAX_TEXT:,} characters")
        text.encode()  # a lone surrogate is a ValueError
    if "" in names or not all(key.isprintable() for key in keys):
        raise ValueError("a feature has no name, or a key has control characters")
    return Manifest(
        num_lanes=fields.num_lanes,
        worker_counts=fields.worker_counts,
        features=tuple(
            Feature(f.name, f.kind, f.shape, f.optional, f.sequence) for f in fields.features
        ),
        label_names=fields.label_names,
        source_fingerprint=fields.source_fingerprint,
        transform_key=fields.transform_key,
        layout_key=fields.layout_key,
        quarantined=fields.quarantined,
        notes=fields.notes,
        left_out=fields.left_out,
        shared_records=tuple(
            SharedRecords(shared.split, shared.other, shared.records)
            for shared in fields.shared_records
        ),
        splits=tuple(_split_from_fields(split) for split in fields.splits),
    )


def _split_from_fields(fields: SplitFields) -> Split:
    shards = tuple(_shard_from_fields(shard) for shard in fields.shards)
    return Split(fields.name, shards, fields.label_counts, fields.statistics)


def _shard_from_fields(fields: ShardFields) -> ShardInfo:
    return ShardInfo(
        name=fields.name,
        records=fields.records,
        bytes=fields.bytes,
        crc32c=parse_hex(fields.crc32c, 8, "crc32c"),
        fingerprint=parse_hex(fields.fingerprint, 16, "fingerprint"),
    )


def _check_totals(split: Split, fields: SplitFields) -> None:
    fingerprint = parse_hex(fields.fingerprint, 16, "fingerprint")
    found = (fields.records, fields.bytes, fingerprint)
    if found != (split.num_records, split.num_bytes, split.fingerprint):
        raise UserError(
            f"records, bytes and fingerprint of split '{split.name}' are not the sums over its "
            f"shards: {_DAMAGED}"
        )


def _check_labels(manifest: Manifest, split: Split, lost_records: int) -> None:
    counts, names = split.label_counts, manifest.label_names
    if not counts:
        return
    label = manifest.feature(LABEL)
    beyond = len(counts) > len(names)  # labels above the named classes: the last of them occurs
    if (
        label is None
        or (label.kind, label.shape) != ("int64", ())
        or not len(names) <= len(counts) <= max(len(names), MAX_CLASSES)
        or min(counts) < 0
        or (beyond and not counts[-1])
        or not 0 <= sum(counts) - split.num_records <= lost_records
    ):
        raise UserError(
            f"label_counts of split '{split.name}' do not fit its {split.num_records} records, "
            f"its {len(names)} label_names and its features: {_DAMAGED}"
        )
