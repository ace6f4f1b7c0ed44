"""The common schema of all Examples of a data set, merged record by record."""

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import TypeAlias

from tenfold.data.format.manifest import Feature

# The features of one record, or of several merged, sorted by name.
Schema: TypeAlias = tuple[Feature, ...]


class SchemaError(ValueError):
    """A record has other features than the records before it."""


def merge_schemas(first: Schema, second: Schema) -> Schema:
    """Return the schema that fits the records of both; () stands for no records.

    A dimension that differs becomes None; ``image`` and ``bytes`` become ``bytes``. One schema
    may lack features that are optional in the other.

    Raises:
      SchemaError: their features differ in names, kinds or number of dimensions.
    """
    if first == second or not second:
        return first
    if not first:
        return second
    known, found = ({feature.name: feature for feature in schema} for schema in (first, second))
    either = found | known
    if any(not either[name].optional for name in known.keys() ^ found.keys()):
        raise SchemaError(
            f"it has the features {', '.join(found)}, others have {', '.join(known)}"
        )
    return tuple(
        _merge(known.get(name, either[name]), found.get(name, either[name]))
        for name in sorted(either)
    )


def merge_all(schemas: Iterable[Schema]) -> Schema:
    """Return all schemas merged; () for none."""
    merged: Schema = ()
    for schema in schemas:
        merged = merge_schemas(merged, schema)
    return merged


def _merge(first: Feature, second: Feature) -> Feature:
    optional = first.optional or second.optional
    if first.sequence != second.sequence:
        raise SchemaError(f"its feature '{second.name}' is a sequence only in some records")
    if first.sequence and 0 in (first.shape[0], second.shape[0]):
        # The kind of a sequence without steps is unknown.
        known = second if first.shape[0] == 0 else first
        steps = first.shape[0] if first.shape[0] == second.shape[0] else None
        return replace(known, shape=(steps, *known.shape[1:]))
    if first.kind != second.kind:
        if {first.kind, second.kind} != {"bytes", "image"}:
            raise SchemaError(
                f"its feature '{second.name}' is of kind {second.kind}, in others {first.kind}"
            )
        return Feature(first.name, "bytes", (), optional)
    shape = _merge_shapes(first.shape, second.shape)
    if shape is None:
        raise SchemaError(
            f"its feature '{second.name}' has shape {_show(second)}, in others {_show(first)}"
        )
    return replace(first, shape=shape, optional=optional)


def _merge_shapes(
    first: tuple[int | None, ...], second: tuple[int | None, ...]
) -> tuple[int | None, ...] | None:
    """Return the shape that fits both; None if they differ in the number of dimensions."""
    # An empty list does not tell how many dimensions its entries would have.
    for empty, other in ((first, second), (second, first)):
        if empty == (0,) and len(other) > 1:
            return (None, *other[1:])
    if len(first) != len(second):
        return None
    return tuple(a if a == b else None for a, b in zip(first, second, strict=True))


def _show(feature: Feature) -> str:
    return "scalar" if not feature.shape else str(list(feature.shape))


class SchemaObserver:
    """Merges the schemas of records one by one; repeated schemas cost a lookup.

    `optional` names the features that records may lack.
    """

    def __init__(self, optional: Collection[str] = ()) -> None:
        self.schema: Schema = ()
        self._optional = frozenset(optional)
        self._seen: set[Schema] = set()
        self._last: Schema | None = None  # most records share one tuple, whose hash takes time

    def add(self, schema: Schema) -> None:
        """Merge one record's schema.

        Raises:
          SchemaError: it does not match the records before.
        """
        if schema is self._last or schema in self._seen:
            return
        self.schema = merge_schemas(self.schema, self._marked(schema))
        if len(self._seen) < 1000:  # bounds memory where every record has another shape
            self._seen.add(schema)
            self._last = schema

    def _marked(self, schema: Schema) -> Schema:
        """Return a record's schema with its optional features marked as such."""
        return tuple(
            replace(feature, optional=True) if feature.name in self._optional else feature
            for feature in schema
        )


def describe_feature(feature: Feature) -> str:
    """Return the kind and shape of a feature, like ``image 28 × 28 × 1``."""
    if feature.sequence:
        inner = describe_feature(Feature(feature.name, feature.kind, feature.shape[1:]))
        steps = feature.shape[0]
        return f"sequence of {'any number of' if steps is None else f'{steps:,}'} {inner}"
    sizes = " × ".join("any" if size is None else f"{size:,}" for size in feature.shape)
    optional = ", optional" if feature.optional else ""
    return f"{feature.kind} {sizes or 'scalar'}{optional}"
