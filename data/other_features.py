"""What a record holds beside its picture, out of the Example that is left without it.

For a handful of numbers, a label above all, waking TensorFlow's threads to parse them takes longer
than parsing. Most records have no other numbers than an earlier one of the same label: what was
parsed is remembered by its bytes. Anything else is left to TensorFlow.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final, Protocol

import numpy as np
import tensorflow as tf

from tenfold.data.example import decode_example, walk_example
from tenfold.data.manifest import Feature
from tenfold.data.parse import parse_features

# Of more numbers than this, parsing in Python is the slower way.
MOST_VALUES: Final = 16

_REMEMBERED: Final = 4096
_DTYPES: Final = {"int64": np.int64, "float": np.float32}

# The values of each feature.
Row = list[list[Any]]


class OtherFeatures(Protocol):
    """Parses features of serialized Examples: rows, then columns of them, then tensors."""

    @property
    def dtypes(self) -> Sequence[Any]:
        """Those of the columns."""
        ...

    def row(self, example: bytes) -> Any:
        """Returns what `columns` takes of one Example.

        Raises:
          ValueError: it is none, or has other values than a feature's.
        """
        ...

    def columns(self, rows: Sequence[Any]) -> list[Any]:
        """Returns arrays [len(rows), …]."""
        ...

    def tensors(self, columns: Sequence[tf.Tensor]) -> dict[str, tf.Tensor]:
        """Returns each feature by its name, [n, *shape], in a graph."""
        ...


def other_features(features: Sequence[Feature]) -> OtherFeatures:
    """Returns what parses `features` the fastest."""
    return SmallFeatures(features) if are_small(features) else LargeFeatures(features)


def are_small(features: Sequence[Feature]) -> bool:
    """Says whether `features` are few numbers, of fixed shapes."""
    if any(feature.kind not in _DTYPES or None in feature.shape for feature in features):
        return False
    return sum(map(_size, features)) <= MOST_VALUES


class LargeFeatures:
    """Leaves parsing to TensorFlow, as strings."""

    dtypes = (tf.string,)

    def __init__(self, features: Sequence[Feature]) -> None:
        self._features = tuple(features)

    def row(self, example: bytes) -> bytes:
        """See `OtherFeatures`; values of a wrong kind or number are TensorFlow's to find."""
        for _ in walk_example(example):  # TensorFlow's error would not name the record
            pass
        return example

    def columns(self, rows: Sequence[bytes]) -> list[Any]:
        """See `OtherFeatures`."""
        return [np.array(rows, object)]

    def tensors(self, columns: Sequence[tf.Tensor]) -> dict[str, tf.Tensor]:
        """See `OtherFeatures`."""
        return parse_features(tf.ensure_shape(columns[0], [None]), self._features)


class SmallFeatures:
    """Parses features for which `are_small` holds here."""

    def __init__(self, features: Sequence[Feature]) -> None:
        self._features = tuple(features)
        self.dtypes = [_DTYPES[feature.kind] for feature in features]
        self.row = lru_cache(_REMEMBERED)(self._row)

    def _row(self, example: bytes) -> Row:
        found = decode_example(example)
        return [_values(feature, found) for feature in self._features]

    def columns(self, rows: Sequence[Row]) -> list[Any]:
        """Returns an array [len(rows), *shape] of each feature."""
        return [
            np.array([row[at] for row in rows], dtype).reshape(len(rows), *feature.shape)
            for at, (feature, dtype) in enumerate(zip(self._features, self.dtypes, strict=True))
        ]

    def tensors(self, columns: Sequence[tf.Tensor]) -> dict[str, tf.Tensor]:
        """See `OtherFeatures`."""
        return {
            feature.name: tf.ensure_shape(column, [None, *feature.shape])
            for feature, column in zip(self._features, columns, strict=True)
        }


def _size(feature: Feature) -> int:
    return math.prod(size for size in feature.shape if size is not None)


def _values(feature: Feature, found: dict[str, tuple[str, list[Any]]]) -> list[Any]:
    kind, values = found.get(feature.name, (feature.kind, []))
    if kind != feature.kind or len(values) != _size(feature):
        raise ValueError(
            f"feature '{feature.name}' has {len(values)} {kind} values, "
            f"the manifest says {_size(feature)} {feature.kind}"
        )
    return values
