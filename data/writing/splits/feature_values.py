"""The values of one feature over all examples of a source, for dealing the examples to splits."""

from collections.abc import Hashable, Iterable, Iterator
from typing import Any

from tenfold.data.errors import UserError, did_you_mean
from tenfold.data.planning.splits.own_splits import BROKEN_RECORD, FeatureValues, code_values
from tenfold.data.sources.base import Source, UnusableRecord


def feature_values(source: Source, name: str) -> FeatureValues:
    """Return the values of feature `name` over all examples of `source`.

    Asks the source's own method ``feature_values`` if it has one, which is fast; otherwise reads
    every record once.

    Raises:
      UserError: no record has the feature, or a value is no text and no number.
    """
    own = getattr(source, "feature_values", None)
    known: FeatureValues | None = None if own is None else own(name)
    return code_values(_read_values(source, name)) if known is None else known


def _read_values(source: Source, name: str) -> Iterator[Any]:
    others: set[str] = set()
    seen = False
    for index in range(source.stats.num_examples):
        try:
            features = source.features(index)
        except UnusableRecord:
            yield BROKEN_RECORD
            continue
        if not seen:
            others.update(features)
            seen = name in features
        try:
            yield plain_value(features.get(name))
        except ValueError as error:
            raise UserError(f"{source.name(index)}: feature '{name}' {error}") from None
    if not seen:
        raise unknown_feature(name, others)


def unknown_feature(name: str, others: Iterable[str]) -> UserError:
    """Return the error for a feature that no record has; `others` are the features there are."""
    names = sorted(others)
    return UserError(f"no record has a feature '{name}': {did_you_mean(name, names)}")


def plain_value(value: Any) -> Hashable:
    """Return a value as text or a number, so that equal values compare equal.

    Raises:
      ValueError: it is neither; the message says what it is.
    """
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list) and len(value) == 1:
        (value,) = value
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise ValueError("is no text, but bytes: name a feature of text or numbers") from None
    if value is None or isinstance(value, (str, int, float)):
        return value
    raise ValueError(
        f"is {type(value).__name__}, not one value: name a feature of text or numbers"
    )
