"""The manifest: the description of a folder of shards, in JSON (docs/manifest.md).

A write publishes it last: a folder without a manifest is no data set. A manifest may come from
an untrusted place, so reading one checks everything. In particular, shard names are formatted and
parsed only here, so that none can point outside of the manifest's folder.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tenfold.data.errors import UserError

MANIFEST_NAME: Final = "manifest.json"
FORMAT: Final = "tenfold-shards"
VERSION: Final = 1
KINDS: Final = ("image", "bytes", "float", "int64")
IMAGE: Final = "image"
LABEL: Final = "label"

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
    """

    name: str
    kind: str
    shape: tuple[int | None, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UserError(f"feature '{self.name}' is of kind '{self.kind}', not one of {KINDS}")


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


@dataclass(frozen=True)
class Split:
    """One split of a data set.

    Attributes:
      name: the split's name.
      shards: its shards, in order; shard i belongs to lane i % num_lanes.
      label_counts: the number of records of each class; () if the data has no classes.
    """

    name: str
    shards: tuple[ShardInfo, ...]
    label_counts: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_split_name(self.name)
        total = len(self.shards)
        for index, shard in enumerate(self.shards):
            if shard.name != shard_name(self.name, index, total):
                raise UserError(
                    f"shard '{shard.name}' should be named "
                    f"'{shard_name(self.name, index, total)}': the manifest is damaged or foreign"
                )
            if not 0 <= shard.records <= shard.bytes:
                raise UserError(
                    f"shard '{shard.name}' cannot hold {shard.records} records in "
                    f"{shard.bytes} bytes: the manifest is damaged or foreign"
                )

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

    def __post_init__(self) -> None:
        if self.num_lanes < 1:
            raise UserError(f"manifest: num_lanes is {self.num_lanes}, it must be at least 1")
        for split in self.splits:
            if len(split.shards) % self.num_lanes:
                raise UserError(
                    f"manifest: split '{split.name}' has {len(split.shards)} shards, "
                    f"not a multiple of its {self.num_lanes} lanes"
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
        "features": [
            {"name": f.name, "kind": f.kind, "shape": list(f.shape)} for f in manifest.features
        ],
        "label_names": list(manifest.label_names),
        "source_fingerprint": manifest.source_fingerprint,
        "transform_key": manifest.transform_key,
        "layout_key": manifest.layout_key,
        "quarantined": manifest.quarantined,
        "splits": [
            {
                "name": split.name,
                "records": split.num_records,
                "bytes": split.num_bytes,
                "fingerprint": f"{split.fingerprint:016x}",
                "label_counts": list(split.label_counts),
                "shards": [_shard_to_json(shard) for shard in split.shards],
            }
            for split in manifest.splits
        ],
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _shard_to_json(shard: ShardInfo) -> dict[str, Any]:
    return {
        "name": shard.name,
        "records": shard.records,
        "bytes": shard.bytes,
        "crc32c": f"{shard.crc32c:08x}",
        "fingerprint": f"{shard.fingerprint:016x}",
    }


def manifest_from_json(text: str, *, where: str = MANIFEST_NAME) -> Manifest:
    """Return the manifest in the JSON `text`; `where` names its file in messages.

    Raises:
      UserError: the text is no manifest of this version, or the manifest is damaged.
    """
    try:
        document = json.loads(text)
        if document["format"] != FORMAT or document["version"] != VERSION:
            raise UserError(
                f"it is {document['format']} version {document['version']}, "
                f"this tenfold reads {FORMAT} version {VERSION}"
            )
        return Manifest(
            num_lanes=int(document["num_lanes"]),
            worker_counts=tuple(int(count) for count in document["worker_counts"]),
            features=tuple(_feature_from_json(f) for f in document["features"]),
            label_names=tuple(str(name) for name in document["label_names"]),
            source_fingerprint=str(document["source_fingerprint"]),
            transform_key=str(document["transform_key"]),
            layout_key=str(document["layout_key"]),
            quarantined=int(document["quarantined"]),
            splits=tuple(_split_from_json(split) for split in document["splits"]),
        )
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{where} is not a manifest ({type(error).__name__}: {error}): "
            "run 'tenfold write' to make the shards again"
        ) from error


def _feature_from_json(document: Mapping[str, Any]) -> Feature:
    shape = tuple(None if size is None else int(size) for size in document["shape"])
    return Feature(str(document["name"]), str(document["kind"]), shape)


def _split_from_json(document: Mapping[str, Any]) -> Split:
    shards = tuple(
        ShardInfo(
            name=str(shard["name"]),
            records=int(shard["records"]),
            bytes=int(shard["bytes"]),
            crc32c=int(shard["crc32c"], 16),
            fingerprint=int(shard["fingerprint"], 16),
        )
        for shard in document["shards"]
    )
    counts = tuple(int(count) for count in document["label_counts"])
    return Split(str(document["name"]), shards, counts)
