"""A source for each split, joined to one source that keeps the splits.

The splits are given by name (``--split=train=a.csv,validation=b.csv``), or they are the folders
``train``, ``val``, ``test`` of a tree, each of which is a source of its own.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Collection, Mapping
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tenfold.data.errors import UserError
from tenfold.data.format.example import Features
from tenfold.data.format.manifest import LABEL, check_split_name
from tenfold.data.planning.layout import SourceStats
from tenfold.data.planning.splits.own_splits import (
    BROKEN,
    BROKEN_RECORD,
    FeatureValues,
    OwnSplit,
    code_values,
)
from tenfold.data.planning.splits.split_names import standard_split_name
from tenfold.data.sources.base import Encoded, Source, UnusableRecord
from tenfold.data.sources.class_labels import map_labels
from tenfold.data.sources.features import encode_features

if TYPE_CHECKING:
    import numpy as np

    from tenfold.data.format.columns import Columns

# Opens the source of one split, with a scratch folder of its own.
Open = Callable[[Any, Path], Source]
# Records looked at for the features of a split: the first may be broken.
_LOOKED_AT: Final = 10


def join_splits(specs: Mapping[str, Any], scratch: Path, open_part: Open) -> "JoinedSource":
    """Open the source of each split and return them as one source.

    Args:
      specs: for each split its source, as `open_source` takes it.
      scratch: local folder for the results of the scans.
      open_part: opens one of them.

    Raises:
      UserError: a split has no name, or the sources do not fit each other.
    """
    if not specs:
        raise UserError("the source is an empty dict: give a source for each split")
    parts: dict[str, Source] = {}
    for given, spec in specs.items():
        name = standard_split_name(check_split_name(str(given)))
        if name in parts:
            raise UserError(f"split '{name}' has two sources: give one")
        folder = scratch / f"of-{name}"
        folder.mkdir()
        parts[name] = open_part(spec, folder)
    return JoinedSource(parts, _lacking_features(parts))


class JoinedSource:
    """The sources of several splits, one after the other, with the classes of all of them."""

    def __init__(
        self, parts: Mapping[str, Source], lacking: Mapping[str, Collection[str]]
    ) -> None:
        """Join `parts`; `lacking` names the features that the records of a split lack."""
        self.splits = tuple(OwnSplit(name, p.stats.num_examples) for name, p in parts.items())
        self.concurrent_reads = max(int(getattr(p, "concurrent_reads", 1)) for p in parts.values())
        self._parts = tuple(parts.values())
        self._firsts = [0, *accumulate(part.stats.num_examples for part in self._parts)]
        names, num_classes, self._new_labels = _join_classes(parts)
        self.stats = _join_stats(parts, names, num_classes)
        self.notes = (
            *(f"{name}: {note}" for name, part in parts.items() for note in part.notes),
            *(
                f"split '{name}' has no feature '{feature}'"
                for name, features in lacking.items()
                for feature in features
            ),
        )
        self.optional_features = frozenset[str]().union(
            *(getattr(part, "optional_features", ()) for part in self._parts), *lacking.values()
        )

    def encoded(self, index: int) -> Encoded:
        """Return example `index`, packed, with its class among those of all; see `Source`."""
        number, index_in_part = self._locate(index)
        if not self._new_labels[number]:
            return self._parts[number].encoded(index_in_part)
        return encode_features(self.features(index))

    def features(self, index: int) -> Features:
        """Return example `index` as values; see `Source`."""
        number, index_in_part = self._locate(index)
        features = self._parts[number].features(index_in_part)
        new_labels = self._new_labels[number]
        if not new_labels or LABEL not in features:
            return features
        return {**features, LABEL: new_labels[int(_scalar(features[LABEL]))]}

    def name(self, index: int) -> str:
        """Return the name that its own source gives to example `index`."""
        number, index_in_part = self._locate(index)
        return self._parts[number].name(index_in_part)

    @property
    def columns(self) -> "Callable[[np.ndarray], Columns | None] | None":
        """`Source.columns` if one of the sources has columns; else None."""
        if any(getattr(part, "columns", None) is not None for part in self._parts):
            return self._columns
        return None

    def _columns(self, indices: "np.ndarray") -> "Columns | None":
        """Return the examples `indices`, int64 [n], as columns if their source can; else None."""
        number, _ = self._locate(int(indices[0]))
        first, end = self._firsts[number], self._firsts[number + 1]
        columns = getattr(self._parts[number], "columns", None)
        if columns is None or self._new_labels[number] or not self._in_part(indices, first, end):
            return None
        return columns(indices - first)

    @staticmethod
    def _in_part(indices: "np.ndarray", first: int, end: int) -> bool:
        return bool(((first <= indices) & (indices < end)).all())

    def feature_values(self, name: str) -> FeatureValues | None:
        """Return the values of a feature if all sources know them without reading."""
        known = [getattr(part, "feature_values", None) for part in self._parts]
        found = [method(name) for method in known if method is not None]
        changed = name == LABEL and any(self._new_labels)
        if changed or len(found) < len(self._parts) or any(values is None for values in found):
            return None
        return code_values(
            values.values[code] if code >= 0 else (BROKEN_RECORD if code == BROKEN else None)
            for values in found
            for code in values.codes
        )

    def _locate(self, index: int) -> tuple[int, int]:
        """Return the number of the part that holds example `index`, and its index there."""
        number = bisect_right(self._firsts, index) - 1
        return number, index - self._firsts[number]


def _scalar(value: Any) -> Any:
    if hasattr(value, "item"):
        return value.item()
    return value[0] if isinstance(value, (list, tuple)) else value


def _lacking_features(parts: Mapping[str, Source]) -> dict[str, list[str]]:
    """Return the features that a split lacks, judged by the first sound record of each.

    Raises:
      UserError: a split lacks labels, or a feature is of another kind than in another split.
    """
    kinds = {name: found for name, part in parts.items() if (found := _kinds(part)) is not None}
    known: dict[str, tuple[str, str]] = {}
    for split, found in kinds.items():
        for feature, kind in found.items():
            other, other_kind = known.setdefault(feature, (split, kind))
            if kind != other_kind:
                raise UserError(
                    f"feature '{feature}' is of kind {kind} in split '{split}', but {other_kind} "
                    f"in '{other}': make them alike, or write the splits apart"
                )
    unlabelled = [split for split, found in kinds.items() if LABEL in known and LABEL not in found]
    if unlabelled:
        rest = ",".join(f"{name}=…" for name in parts if name not in unlabelled)
        raise UserError(
            f"split '{unlabelled[0]}' has no label, '{known[LABEL][0]}' has: leave it out, "
            f"--split={rest}, or write it apart"
        )
    lacking = {
        split: sorted(
            set(known) - set(found) - set(getattr(parts[split], "optional_features", ()))
        )
        for split, found in kinds.items()
    }
    return {split: features for split, features in lacking.items() if features}


def _kinds(part: Source) -> dict[str, str] | None:
    """Return the kind of each feature of the first sound record; None if there is none early."""
    for index in range(min(_LOOKED_AT, part.stats.num_examples)):
        try:
            return {feature.name: feature.kind for feature in part.encoded(index).schema}
        except UnusableRecord:
            continue
    return None


def _join_classes(
    parts: Mapping[str, Source],
) -> tuple[tuple[str, ...], int | None, list[tuple[int, ...]]]:
    """Return the names and number of all classes, and the new class of each class of each part.

    The last is () for a part whose classes keep their numbers.

    Raises:
      UserError: labels are classes in one split and numbers in another.
    """
    stats = {name: part.stats for name, part in parts.items()}
    unchanged: list[tuple[int, ...]] = [() for _ in parts]
    first = next(iter(stats.values()))
    if len({(s.label_names, s.num_classes) for s in stats.values()}) == 1:
        return first.label_names, first.num_classes, unchanged
    if not any(s.label_names for s in stats.values()):
        # Classes without names are numbered 0 … n-1 in each split.
        known = [s.num_classes for s in stats.values() if s.num_classes is not None]
        return (), max(known) if len(known) == len(stats) and min(known) else None, unchanged
    without = next((n for n, s in stats.items() if not s.label_names and not s.num_classes), None)
    if without is not None:
        named = next(name for name, s in stats.items() if s.label_names)
        raise UserError(
            f"the labels are classes in split '{named}', but not in '{without}': make them alike, "
            "or write the splits apart"
        )
    own = {
        n: s.label_names or tuple(map(str, range(s.num_classes or 0))) for n, s in stats.items()
    }
    names = _union(own.values())
    index = {name: number for number, name in enumerate(names)}
    new = [tuple(index[name] for name in own[split]) for split in parts]
    return names, len(names), [() if row == tuple(range(len(row))) else row for row in new]


def _union(lists: Collection[tuple[str, ...]]) -> tuple[str, ...]:
    """Return all names: the list that has them all, else all of them in the order of classes."""
    every = {name for names in lists for name in names}
    whole = next((names for names in lists if len(names) == len(every)), None)
    if whole is not None:
        return whole
    if all(name.lstrip("-").isdecimal() for name in every):
        return tuple(map(str, sorted(map(int, every))))
    return map_labels(every, records=len(every)).names


def _join_stats(
    parts: Mapping[str, Source], names: tuple[str, ...], num_classes: int | None
) -> SourceStats:
    stats = [part.stats for part in parts.values()]
    text = "\0".join(f"{name}\0{part.stats.fingerprint}" for name, part in parts.items())
    return SourceStats(
        num_examples=sum(s.num_examples for s in stats),
        total_bytes=sum(s.total_bytes for s in stats),
        max_record_bytes=max(s.max_record_bytes for s in stats),
        label_names=names,
        num_classes=num_classes,
        fingerprint=f"splits-{hashlib.sha256(text.encode()).hexdigest()[:16]}",
    )
