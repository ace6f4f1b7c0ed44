"""Dataclasses from JSON objects, each field checked against its annotation. Pure.

The counterpart of `json.dumps(dataclasses.asdict(value))`: lists become tuples, objects become
nested dataclasses. Supported annotations: bool, int, float, str, Any, unions with None,
tuple[T, ...], tuple[T, U], Mapping[str, T], dict[str, T] and dataclasses of these.
"""

import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from typing import Any, Final, TypeVar, cast

T = TypeVar("T")

_NAMES: Final = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def from_json_fields(kind: type[T], document: object, *, ignore_unknown: bool = False) -> T:
    """Return the instance of the dataclass `kind` that a parsed JSON object describes.

    Args:
      kind: a dataclass.
      document: what `json.loads` returned.
      ignore_unknown: skip keys that `kind` does not have, as a newer version may write them.

    Raises:
      ValueError: a field is missing, unknown or of another type; the message names it.
    """
    if not isinstance(document, dict):
        raise ValueError(f"{_shown(document)} is not a JSON object")
    known = _fields_of(cast(Any, kind))
    unknown = sorted(set(document) - set(known))
    if unknown and not ignore_unknown:
        raise ValueError(f"unknown {unknown[0]}; there are {', '.join(known)}")
    for name, (field, _) in known.items():
        if name not in document and field.default is field.default_factory is MISSING:
            raise ValueError(f"{name} is missing")
    return kind(
        **{
            name: _parse(annotation, document[name], name)
            for name, (_, annotation) in known.items()
            if name in document
        }
    )


@cache
def _fields_of(kind: type) -> dict[str, tuple["Field[Any]", Any]]:
    annotations = typing.get_type_hints(kind)
    return {field.name: (field, annotations[field.name]) for field in fields(kind)}


def _parse(annotation: Any, value: Any, name: str) -> Any:
    if annotation is Any:
        return value
    if annotation in _NAMES:
        return _parse_scalar(annotation, value, name)
    if is_dataclass(annotation):
        return _parse_dataclass(annotation, value, name)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        (inner,) = (argument for argument in arguments if argument is not type(None))
        return None if value is None else _parse(inner, value, name)
    if origin is tuple:
        return _parse_tuple(arguments, value, name)
    assert origin in (dict, Mapping) or issubclass(origin, Mapping), annotation
    if not isinstance(value, dict):
        raise ValueError(f"{name} is {_shown(value)}, not a JSON object")
    return {key: _parse(arguments[1], entry, f"{name}.{key}") for key, entry in value.items()}


def _parse_scalar(annotation: type, value: Any, name: str) -> Any:
    if annotation is float and type(value) is int and abs(value) < 2**1023:
        return float(value)
    if type(value) is not annotation:
        raise ValueError(f"{name} is {_shown(value)}, not {_NAMES[annotation]}")
    return value


def _parse_dataclass(annotation: Any, value: Any, name: str) -> Any:
    try:
        return from_json_fields(annotation, value)
    except ValueError as error:
        raise ValueError(f"in {name}: {error}") from error


def _parse_tuple(arguments: tuple[Any, ...], value: Any, name: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise ValueError(f"{name} is {_shown(value)}, not a list")
    if arguments[-1] is Ellipsis:
        arguments = (arguments[0],) * len(value)
    if len(value) != len(arguments):
        raise ValueError(f"{name} has {len(value)} entries, not {len(arguments)}")
    return tuple(
        _parse(argument, entry, f"{name}[{index}]")
        for index, (argument, entry) in enumerate(zip(arguments, value, strict=True))
    )


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
