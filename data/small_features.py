"""The few numbers beside a picture, a label above all, out of its Example in Python.

For a handful of numbers, waking TensorFlow's threads to parse them takes longer than parsing.
Most records have no other numbers than the one before them of the same label: what was parsed
is remembered by its bytes.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np

from tenfold.data.example import decode_example
from tenfold.data.manifest import Feature

# Of more numbers than this, parsing in Python is the slower way.
MOST_VALUES: Final = 16

_REMEMBERED: Final = 4096
_DTYPES: Final = {"int64": np.int64, "float": np.float32}

# The values of each feature.
Row = list[list[Any]]


def are_small(features: Sequence[Feature]) -> bool:
    """Says whether `features` are few numbers, of fixed shapes."""
    if any(feature.kind not in _DTYPES or None in feature.shape for feature in features):
        return False
    return sum(map(_size, features)) <= MOST_VALUES


class SmallFeatures:
    """Parses `features`, for which `are_small` holds, of serialized Examples."""

    def __init__(self, features: Sequence[Feature]) -> None:
        self._features = tuple(features)
        self.dtypes = [_DTYPES[feature.kind] for feature in features]
        self.row = lru_cache(_REMEMBERED)(self._row)

    def _row(self, example: bytes) -> Row:
        """Returns the values of each feature of one Example.

        Raises:
          ValueError: it is none, or has other values than a feature's.
        """
        found = decode_example(example)
        return [_values(feature, found) for feature in self._features]

    def columns(self, rows: Sequence[Row]) -> list[Any]:
        """Returns an array [len(rows), *shape] of each feature."""
        return [
            np.array([row[at] for row in rows], dtype).reshape(len(rows), *feature.shape)
            for at, (feature, dtype) in enumerate(zip(self._features, self.dtypes, strict=True))
        ]


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
