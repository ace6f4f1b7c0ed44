"""The schemas of the records that columns hold: shapes, images, and features that are absent."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np

from tenfold.data.format.columns import Column, Columns
from tenfold.data.format.image_header import image_shape, is_image
from tenfold.data.format.manifest import Feature
from tenfold.data.format.schema import Schema


def check_images(columns: Columns) -> tuple[dict[int, str], dict[str, list[Feature]]]:
    """Return the unusable records, and the schema of each record's value of kind ``image``."""
    unusable = dict(columns.unusable)
    features: dict[str, list[Feature]] = {}
    for name, column in sorted(columns.columns.items()):
        if column.kind != "image" or column.shape != ():
            continue
        assert column.offsets is not None
        view, features[name] = np.ascontiguousarray(column.values).data, []
        present = column.is_present().tolist()
        for row, (begin, end) in enumerate(pairwise(column.offsets.tolist())):
            feature = Feature(name, "bytes", ())
            if present[row] and is_image(bytes(view[begin : min(end, begin + 16)])):
                try:
                    feature = Feature(name, "image", image_shape(bytes(view[begin:end])))
                except ValueError as error:
                    unusable.setdefault(row, f"feature '{name}': {error}")
            features[name].append(feature)
    return unusable, features


def schemas_of(
    rows: np.ndarray, columns: Mapping[str, Column], images: Mapping[str, list[Feature]]
) -> Iterator[tuple[int, Schema]]:
    """Yield each schema that occurs among the records, with the first record that has it."""
    if not len(rows):
        return
    features, codes = [], []
    for name, column in columns.items():
        kinds = _features(
            name, column, [images[name][row] for row in rows] if name in images else []
        )
        features.append(kinds[0])
        codes.append(kinds[1])
    if all(code is None for code in codes):
        yield int(rows[0]), tuple(choices[0] for choices in features)
        return
    zeros = np.zeros(len(rows), np.int64)
    table = np.stack([zeros if code is None else code for code in codes], axis=1)
    different, first = np.unique(table, axis=0, return_index=True)
    for position in np.argsort(first):
        picked = zip(features, different[position].tolist(), strict=True)
        schema = tuple(choices[code] for choices, code in picked if code >= 0)
        yield int(rows[first[position]]), schema


def _features(
    name: str, column: Column, images: Sequence[Feature]
) -> tuple[list[Feature], np.ndarray | None]:
    """Return the schemas of a column's values, and which of them each record has, -1 for none.

    The second is None where all records have the first.
    """
    if images:
        choices = list(dict.fromkeys(images))
        numbers = {feature: number for number, feature in enumerate(choices)}
        codes = np.array([numbers[feature] for feature in images], np.int64)
    else:
        choices, codes = [_feature(name, column)], np.zeros(len(column), np.int64)
    if column.present is not None:
        return choices, np.where(column.present, codes, -1)
    return choices, codes if len(choices) > 1 else None


def _feature(name: str, column: Column) -> Feature:
    kind = "bytes" if column.kind == "image" else column.kind
    shape = column.shape
    if column.lengths is not None:
        lengths = column.lengths[column.is_present()]
        if len(lengths) and bool((lengths == lengths[0]).all()):
            shape = (int(lengths[0]),)
    return Feature(name, kind, shape)
