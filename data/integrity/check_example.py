"""Compare one Example with the features of a manifest."""

import math
from collections.abc import Sequence

from tenfold.data.format.example import count_values, unpack_list, walk_example, walk_sequences
from tenfold.data.format.image_header import image_shape
from tenfold.data.format.manifest import IMAGE, LABEL, Feature


def example_problem(payload: bytes, features: Sequence[Feature]) -> str:
    """Return the first difference of an Example from the manifest's features; "" for none."""
    try:
        found = {name: (kind, packed) for name, kind, packed in walk_example(payload)}
        sequences = dict(walk_sequences(payload))
        if set(sequences) != {feature.name for feature in features if feature.sequence}:
            return f"has the sequences {', '.join(sorted(sequences)) or 'of an Example: none'}"
        features = [feature for feature in features if not feature.sequence]
        needed = {feature.name for feature in features if not feature.optional}
        if not needed <= set(found) <= {feature.name for feature in features}:
            return f"has the features {', '.join(sorted(found))}"
        wrong = (f.name for f in features if f.name in found and not _fits(f, *found[f.name]))
        name = next(wrong, None)
    except ValueError as error:
        return f"is not an Example with these features ({error})"
    return "" if name is None else f"has another kind or shape of feature '{name}'"


def label_of(payload: bytes) -> int:
    """Return the label of an Example.

    Raises:
      ValueError: it is no Example, or has no int64 label, or several.
    """
    found = [
        value
        for name, kind, packed in walk_example(payload)
        if name == LABEL and kind == "int64"
        for value in unpack_list(kind, packed)
    ]
    if len(found) != 1:
        raise ValueError(f"it has {len(found)} labels")
    return int(found[0])


def _fits(feature: Feature, kind: str, packed: bytes) -> bool:
    """Whether a stored feature has the kind and shape that the manifest states.

    Raises:
      ValueError: it cannot be parsed.
    """
    if kind != ("bytes" if feature.kind == IMAGE else feature.kind):
        return False
    count = count_values(kind, packed)
    if feature.kind == IMAGE:
        shape = image_shape(unpack_list(kind, packed)[0]) if count == 1 else ()
        return len(shape) == 3 and all(
            size in (None, actual) for size, actual in zip(feature.shape, shape, strict=True)
        )
    known = math.prod(size for size in feature.shape if size is not None)
    if None not in feature.shape:
        return count == known
    return count % known == 0 if known else count == 0
