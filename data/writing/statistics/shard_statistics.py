"""The statistics of the records of one shard, collected while it is written, and of a split.

Each shard sums up its own records; `merge_statistics` joins the sums of the shards of a split in
their order, so that neither the number of processes nor a resumed write changes the result. The
note of a shard in the ledger holds its sums as JSON.
"""

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any, Final

from tenfold.data.format.example import read_varint, unpack_list, walk_sequences
from tenfold.data.format.example_view import feature_lists
from tenfold.data.format.image_header import image_shape, is_image
from tenfold.data.format.manifest import Feature
from tenfold.data.format.schema import Schema
from tenfold.data.format.statistics.feature_statistics import SplitStatistics
from tenfold.data.writing.statistics.feature_sums import FeatureSums, Moments, Numbers

if TYPE_CHECKING:
    import numpy as np

    from tenfold.data.format.columns import Column, Columns

# Records of a split whose payloads are parsed; of a larger split a random part. With images few:
# the rest of their way costs little more than parsing them.
PARSED_RECORDS: Final = 20_000
PARSED_IMAGES: Final = 500
# Records parsed at once: as few as keep images of some KB in the CPU cache.
_BATCH: Final = 64
# Numbers kept for the quantiles of a split, and at least those of a shard.
_MAX_KEPT: Final = 1024
_MIN_KEPT: Final = 64
# A longer list of numbers is summed up by numpy.
_MAX_LIST: Final = 1 << 14


class ShardStatistics:
    """The sums of the features of one shard.

    Columns are summed in full. Single records have to be parsed: of a split of more than
    PARSED_RECORDS, or PARSED_IMAGES, a random part is, chosen by fingerprint.
    """

    def __init__(self, split_records: int = 0, split_shards: int = 1) -> None:
        self.records = 0
        self.features: dict[str, FeatureSums] = {}
        self._max_kept = max(_MIN_KEPT, _MAX_KEPT // split_shards)
        self._split_records = split_records
        self._stride = 0
        self._waiting: list[tuple[bytes, Schema]] = []

    def add_record(self, payload: bytes, schema: Schema, fingerprint: int) -> None:
        """Add one record, if it is among those to parse."""
        if not self._stride:
            images = any(feature.kind == "image" for feature in schema)
            parsed = PARSED_IMAGES if images else PARSED_RECORDS
            self._stride = max(1, self._split_records // parsed)
        if fingerprint % self._stride:
            return
        self._waiting.append((payload, schema))
        if len(self._waiting) == _BATCH:
            self.flush()

    def flush(self) -> None:
        """Sum up the records that wait for it."""
        values: dict[str, _Values] = {}
        for payload, schema in self._waiting:
            _parse(payload, schema, values)
        self._begin(len(self._waiting), values)
        for name, found in values.items():
            found.add_to(self.features[name])
        self._waiting.clear()

    def add_columns(self, columns: "Columns", unusable: Collection[int] = ()) -> None:
        """Add records given as columns, but for the rows that are `unusable`."""
        import numpy as np

        self.flush()
        used = np.ones(columns.num_records, bool)
        used[list(unusable)] = False
        self._begin(int(used.sum()), columns.columns)
        for name, column in columns.columns.items():
            _add_column(self.features[name], column, used)

    def _begin(self, records: int, names: Iterable[str]) -> None:
        """Count `records`, which miss every feature until its values are added."""
        for name in names:
            if name not in self.features:
                self.features[name] = FeatureSums(self._max_kept, missing=self.records)
        for sums in self.features.values():
            sums.missing += records
        self.records += records


def _add_column(sums: FeatureSums, column: "Column", used: "np.ndarray") -> None:
    """Add the values of the records that `used`, bool [n], selects."""
    import numpy as np

    present = column.is_present() & used
    sums.missing -= int(present.sum())
    scalars, whole = column.shape == (), bool(present.all())
    if column.offsets is None and column.lengths is None:
        if not scalars:
            sums.lengths.add(column.counts()[present])
        values = column.values if whole else column.values[present]
        sums.add_numbers(values.reshape(-1), scalars=scalars)
        return
    counts = column.counts()
    each = np.repeat(present, counts)
    if column.offsets is None:
        sums.lengths.add(counts[present])
        sums.add_numbers(column.values if whole else column.values[each], scalars=False)
        return
    data = column.values.tobytes()
    begins, ends = column.offsets[:-1][each].tolist(), column.offsets[1:][each].tolist()
    items = [data[begin:end] for begin, end in zip(begins, ends, strict=True)]
    shapes = []
    if column.kind == "image":  # only those that begin like an image are images
        shapes = [image_shape(item) for item in items if is_image(item)]
        sums.heights.add([shape[0] for shape in shapes])
        sums.widths.add([shape[1] for shape in shapes])
    sums.add_items(items, scalars=scalars, image=bool(shapes))


class _Values:
    """The values of one feature in a batch of records."""

    def __init__(self) -> None:
        self.kind = ""
        self.scalars = True
        self.values: list[Any] = []
        self.counts: list[int] = []
        self.sizes: list[tuple[int | None, ...]] = []

    def add(self, feature: Feature, values: list[Any]) -> None:
        """Add the values of one record."""
        if feature.kind == "image":
            self.sizes.append(feature.shape)
        else:
            self.scalars = self.scalars and feature.shape == ()
        self.kind = feature.kind if self.kind in ("", feature.kind) else "bytes"
        self.values += values
        self.counts.append(len(values))

    def add_to(self, sums: FeatureSums) -> None:
        """Add the values to the sums."""
        sums.missing -= len(self.counts)
        if self.kind in ("bytes", "image"):
            sums.heights.add([size[0] for size in self.sizes])
            sums.widths.add([size[1] for size in self.sizes])
            sums.add_items(self.values, scalars=self.scalars, image=bool(self.sizes))
            return
        if not self.scalars:
            sums.lengths.add(self.counts)
        sums.add_numbers(self._numbers(), scalars=self.scalars)

    def _numbers(self) -> "Numbers":
        if len(self.values) <= _MAX_LIST:
            return self.values
        import numpy as np

        return np.array(self.values, np.int64 if self.kind == "int64" else np.float32)


def _parse(payload: bytes, schema: Schema, values: dict[str, _Values]) -> None:
    """Add the values of one record, by feature."""
    features = {feature.name: feature for feature in schema}
    for name, kind, packed in feature_lists(payload):
        if name not in values:
            values[name] = _Values()
        values[name].add(features[name], _unpacked(kind, packed))
    for name, steps in walk_sequences(payload):
        flat = [value for kind, packed in steps for value in unpack_list(kind, packed)]
        values.setdefault(name, _Values()).add(features[name], flat)


def _unpacked(kind: str, packed: bytes) -> list[Any]:
    """Return the values of a packed list; quick for a small number and for one image."""
    if kind == "int64" and len(packed) == 3 and packed[:2] == b"\n\x01":
        return [packed[2]]
    if kind == "bytes" and packed[:1] == b"\n":
        length, begin = read_varint(packed, 1)
        if begin + length == len(packed):
            return [packed[begin:]]
    return unpack_list(kind, packed)


def merge_statistics(shards: Iterable[ShardStatistics], schema: Schema) -> SplitStatistics:
    """Return the statistics of a split from those of its shards, in order."""
    total = ShardStatistics()
    for shard in shards:
        for name in shard.features:
            if name not in total.features:
                total.features[name] = FeatureSums(missing=total.records)
        for name, sums in total.features.items():
            sums.merge(shard.features.get(name) or FeatureSums(missing=shard.records))
        total.records += shard.records
    return SplitStatistics(
        total.records,
        tuple(
            total.features[feature.name].result(feature.name)
            for feature in schema
            if feature.name in total.features
        ),
    )


def shard_statistics_to_json(statistics: ShardStatistics) -> dict[str, Any]:
    """Return the sums for the note of a shard."""
    return {
        "records": statistics.records,
        "features": {
            name: {
                key: list(vars(value).values()) if isinstance(value, Moments) else value
                for key, value in vars(sums).items()
            }
            for name, sums in statistics.features.items()
        },
    }


def shard_statistics_from_json(document: Any) -> ShardStatistics:
    """Return the sums in the note of a shard.

    Raises:
      ValueError, TypeError, KeyError, AttributeError: the note is damaged.
    """
    found = ShardStatistics()
    found.records = int(document["records"])
    for name, entries in document["features"].items():
        known: dict[str, Any] = {
            key: Moments(*value) if isinstance(vars(FeatureSums())[key], Moments) else value
            for key, value in entries.items()
        }
        found.features[name] = FeatureSums(**known)
    return found
