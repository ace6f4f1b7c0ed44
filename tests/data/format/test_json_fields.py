"""Dataclasses from JSON objects: types are checked, errors name the field."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import pytest

from tenfold.data.format.json_fields import from_json_fields


@dataclass(frozen=True)
class Inner:
    name: str
    size: float = 1.0


@dataclass(frozen=True)
class Outer:
    count: int
    flag: bool = False
    limit: float | None = None
    pair: tuple[int, int] | None = None
    names: tuple[str, ...] = ()
    rates: Mapping[str, float] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    inner: Inner | None = None
    many: tuple[Inner, ...] = ()


def test_dataclass_survives_json() -> None:
    value = Outer(
        3, True, 0.5, (1, 2), ("a", "b"), {"x": 1.5}, {"y": [None]}, Inner("n"), (Inner("m", 2.0),)
    )
    assert from_json_fields(Outer, json.loads(json.dumps(asdict(value)))) == value
    assert from_json_fields(Outer, {"count": 3}) == Outer(3)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (None, "None is not a JSON object"),
        ({}, "count is missing"),
        ({"count": 1, "cuont": 2}, "unknown cuont; there are count, flag, "),
        ({"count": "1"}, "count is '1', not a whole number"),
        ({"count": 1.0}, "count is 1.0, not a whole number"),
        ({"count": True}, "count is True, not a whole number"),
        ({"count": 1, "flag": 1}, "flag is 1, not true or false"),
        ({"count": 1, "limit": "x"}, "limit is 'x', not a number"),
        ({"count": 1, "limit": 10**400}, "limit is 1000"),
        ({"count": 1, "pair": [1]}, "pair has 1 entries, not 2"),
        ({"count": 1, "names": "ab"}, "names is 'ab', not a list"),
        ({"count": 1, "names": ["a", 2]}, r"names\[1\] is 2, not a text"),
        ({"count": 1, "rates": {"x": "y"}}, r"rates\.x is 'y', not a number"),
        ({"count": 1, "rates": []}, r"rates is \[\], not a JSON object"),
        ({"count": 1, "inner": {}}, "in inner: name is missing"),
        ({"count": 1, "many": [{"name": 1}]}, r"in many\[0\]: name is 1, not a text"),
    ],
)
def test_damaged_field_is_named(document: object, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        from_json_fields(Outer, document)


def test_unknown_keys_can_be_ignored() -> None:
    assert from_json_fields(Outer, {"count": 1, "newer": 2}, ignore_unknown=True) == Outer(1)
