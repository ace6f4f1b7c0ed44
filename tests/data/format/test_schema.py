"""Merging of records' schemas: features that some records lack."""

from typing import Any

import pytest

from tenfold.data.format.manifest import Feature
from tenfold.data.format.schema import SchemaError, SchemaObserver, merge_all, merge_schemas

A, B = Feature("a", "int64"), Feature("b", "float", (2,))


def test_record_may_lack_optional_features_only() -> None:
    observer = SchemaObserver(optional=("b",))
    observer.add((A,))
    observer.add((A, B))
    observer.add((A, Feature("b", "float", (3,))))
    assert observer.schema == (A, Feature("b", "float", (None,), optional=True))
    with pytest.raises(SchemaError, match="it has the features b, others have a, b"):
        observer.add((B,))


def test_optional_feature_of_one_shard_is_optional_in_all() -> None:
    optional = Feature("b", "float", (2,), optional=True)
    assert merge_schemas((A,), (A, optional)) == (A, optional)
    assert merge_schemas((A, B), (A, optional)) == (A, optional)
    with pytest.raises(SchemaError):
        merge_schemas((A,), (A, B))


@pytest.mark.parametrize(
    ("shapes", "merged"),
    [
        (((0,), (2, 4)), (None, 4)),
        (((2, 4), (0,), (1, 4)), (None, 4)),
        (((0,), (0,), (3,)), (None,)),
        (((0,), (0,)), (0,)),
    ],
)
def test_empty_list_has_no_inner_dimensions(shapes: Any, merged: Any) -> None:
    schemas = [(Feature("boxes", "float", shape),) for shape in shapes]
    assert merge_all(schemas) == (Feature("boxes", "float", merged),)
